"""Models: what they are trained on, how they are kept, and how they are served.

`serving` is the only caller of `predict_proba`; what a strategy sees of a model is its `proba`.
"""
