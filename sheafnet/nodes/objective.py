"""The objective of a node: what it makes of its own projections and its neighbours'.

SheafAlign's joint loss is the sum over edges of
lambda L_sheaf + beta L_contrast + gamma L_recon (METHOD section 2). A node holds its neighbours'
projections constant and takes the gradient of its incident edges' losses. For L_sheaf and
L_contrast that is exactly the joint gradient with respect to the node's parameters. For L_recon
it lacks the gradient that the neighbour's Q sends into this node's projection; that one is
dropped unless the neighbour returns it (``exchange_gradients``).

In a single space (all-pairs, imagebind) p_i is h_i itself, lambda is zero, and L_recon trains the
dual maps of the neighbours that the node would ask.
"""

from dataclasses import dataclass

from torch import Tensor

from sheafnet.config import Config
from sheafnet.sheaf.losses import contrastive_loss, disagreement, reconstruction_loss
from sheafnet.sheaf.maps import DualMap
from sheafnet.topology import Edge


@dataclass(frozen=True, slots=True)
class EdgeTerms:
    """The losses of one edge as one of its ends sees them; scalars."""

    disagreement: Tensor
    contrastive: Tensor
    reconstruction: Tensor
    weighted: Tensor
    """The edge's share of this node's objective."""


def edge_terms(
    config: Config,
    round_: int,
    edge: Edge,
    section: Tensor,
    own: Tensor,
    received: Tensor,
    dual: DualMap | None,
    memory: Tensor | None = None,
) -> EdgeTerms:
    """The terms of one edge in one round.

    Args:
        config: weights and variants.
        round_: for the warm-up.
        edge: the channel, which may have a temperature of its own.
        section: h_i (B, d_i), with its graph.
        own: p_i (B, d_ij), with its graph.
        received: p_j (B, d_ij) as it came; a leaf that requires a gradient where gradients are
            exchanged, and then only L_recon reaches it.
        dual: Q_ij; None on a channel to a node that is no neighbour.
        memory: projections of earlier rounds that came over the channel (n, d_ij), if any are kept.
    """
    training = config.training
    other = received.detach()
    energy = disagreement(own, other)
    contrastive = contrastive_loss(own, other, edge.temperature or training.temperature, memory)
    source = received if training.reconstruction == "neighbour" else own
    if dual is None:
        reconstruction = section.new_zeros(())
    elif training.reconstruction_gradient == "dual":
        reconstruction = reconstruction_loss(section.detach(), dual(source.detach()))
    else:
        reconstruction = reconstruction_loss(section, dual(source))
    weighted = (
        config.sheaf_factor(round_, own.shape[1]) * energy
        + training.contrastive_weight * contrastive
        + training.reconstruction_weight * reconstruction
    )
    return EdgeTerms(energy, contrastive, reconstruction, weighted)
