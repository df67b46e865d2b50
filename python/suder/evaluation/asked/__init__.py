"""Suites of questions about pictures, one a file; `suder evaluate` finds them here.

Each has a TITLE, READS (its official files), DATASET and TASK (what VLMEvalKit and lmms-eval call
it), and two functions: `questions(table)` and `measures(questions, right, said)`.
"""
