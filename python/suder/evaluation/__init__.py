"""External judgement of a model. Evaluation only: no training code imports this package."""
