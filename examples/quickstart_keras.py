"""A quantum layer in a Keras model: two interleaved half moons, told apart by two qubits.

    python examples/quickstart_keras.py

Needs `pip install "qstore[tf,examples]"`; takes some seconds.
"""

import keras
from sklearn.datasets import make_moons

from qstore_tf import QuantumFeatureExtractor

keras.utils.set_random_seed(0)
x, y = make_moons(400, noise=0.1, random_state=0)
train, test = slice(0, 300), slice(300, None)

quantum = QuantumFeatureExtractor(n_qubits=2, depth=4, encoding="angle", reuploading=True, seed=0)
model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(2),
        quantum,
        keras.layers.Dense(2),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.05),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
print(quantum.draw())
print(quantum.explain())

model.fit(x[train], y[train], batch_size=50, epochs=30, verbose=0)
loss, accuracy = model.evaluate(x[test], y[test], verbose=0)
print(f"after 30 epochs: loss {loss:.3f}, accuracy on 100 new points {accuracy:.0%}")

model.save("moons.keras")
loaded = keras.saving.load_model("moons.keras")
print(f"saved and loaded: accuracy {loaded.evaluate(x[test], y[test], verbose=0)[1]:.0%}")
