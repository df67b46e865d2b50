"""Look before you train: whether a model's rewards of some pictures and texts have a signal.

Stands on `method/`: the rewards, the judge and the selection of a run, on the user's own inputs;
trains nothing and sees no judge but the model itself. `report/` draws the page.
"""
