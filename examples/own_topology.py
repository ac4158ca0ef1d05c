"""Your own network from a graph of networkx: checked, written as YAML, drawn.

Twelve motes lie scattered over a field, and those within reach of each other share an edge. Near
ones talk over Bluetooth in 16 dimensions, far ones over LoRa in 4. Nothing is trained: a `Plan` is
the whole run, worked out and checked.

    python examples/own_topology.py [FOLDER]     without a FOLDER, a temporary one
"""

import math
import sys
import tempfile
from pathlib import Path

import networkx as nx
import yaml
from matplotlib.figure import Figure

import sheafnet

folder = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)

graph = nx.random_geometric_graph(12, radius=0.45, seed=596)
graph = nx.relabel_nodes(graph, {number: f"mote{number}" for number in graph})
place = nx.get_node_attributes(graph, "pos")
edges = []
for here, there in graph.edges:
    near = math.dist(place[here], place[there]) < 0.32
    link = {"comparison_dim": 16, "link": "ble"} if near else {"comparison_dim": 4, "link": "lora"}
    edges.append({"between": [here, there], **link})
network = {
    "name": "field",
    "dataset": {"name": "synthetic", "features": 24},
    "nodes": list(graph.nodes),
    "edges": edges,
    "defaults": {"node": {"embedding_dim": 32}},
    "training": {"rounds": 100, "batch_size": 64},
}

plan = sheafnet.Plan.open(sheafnet.load_config(network))  # refuses whatever cannot be run
dims = [edge.dim for edge in plan.topology.edges]
print(f"{len(plan.topology.nodes)} nodes, {len(dims)} edges, d_ij", end=" ")
print(", ".join(f"{dims.count(dim)} x {dim}" for dim in sorted(set(dims))))
floor = sum(plan.floor("train").values()) // plan.config.training.rounds
print(f"a training round takes at least {floor:,} bytes")

(folder / "field.yaml").write_text(yaml.safe_dump(network, sort_keys=False))
assert sheafnet.load_config(folder / "field.yaml") == plan.config
print(f"sheafnet simulate --topology {folder / 'field.yaml'}")

figure = Figure(figsize=(6, 5), layout="constrained")
axes = figure.subplots()
colours = ["#0072B2" if edge["link"] == "ble" else "#D55E00" for edge in edges]
widths = [edge["comparison_dim"] / 4 for edge in edges]
nx.draw_networkx_edges(graph, place, ax=axes, width=widths, edge_color=colours)
nx.draw_networkx_nodes(graph, place, ax=axes, node_size=1100, node_color="white", edgecolors="k")
nx.draw_networkx_labels(graph, place, ax=axes, font_size=8)
axes.set_title("thick: Bluetooth, 16 dimensions; thin: LoRa, 4", fontsize=10)
axes.axis("off")
figure.savefig(folder / "field.png", dpi=120)
print(f"drawn in {folder / 'field.png'}")

try:
    sheafnet.Plan.open(sheafnet.load_config({**network, "edges": [*edges, ("mote0", "mote12")]}))
except sheafnet.SheafnetError as error:
    print(f"an edge to nowhere is refused: {error}")
