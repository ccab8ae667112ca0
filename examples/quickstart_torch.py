"""A quantum layer in a PyTorch model: two interleaved half moons, told apart by two qubits.

    python examples/quickstart_torch.py

Needs `pip install "qstore[torch,examples]"`; takes some seconds.
"""

import torch
from sklearn.datasets import make_moons
from torch import nn

from qstore_torch import QuantumFeatureExtractor

torch.manual_seed(0)
points, labels = make_moons(400, noise=0.1, random_state=0)
x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
train, test = slice(0, 300), slice(300, None)

quantum = QuantumFeatureExtractor(n_qubits=2, depth=4, encoding="angle", reuploading=True, seed=0)
model = nn.Sequential(nn.Linear(2, 2), quantum, nn.Linear(2, 2))
print(quantum.draw())
print(quantum.explain())

optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
for step in range(201):
    loss = nn.functional.cross_entropy(model(x[train]), y[train])  # one call for all 300 points
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        accuracy = (model(x[test]).argmax(dim=1) == y[test]).float().mean()
        print(f"step {step:3}: loss {loss.item():.3f}, accuracy on 100 new points {accuracy:.0%}")
