"""What `image_classification.py` is made of.

`data` and `augment` make the batches, `nets_*` the networks, `fit_*` train them; `train` holds everything
that must not differ between the frameworks, `report` and `plots` show what came out. The `*_keras` and
`*_torch` files have the same functions in the same order: read them side by side.
"""
