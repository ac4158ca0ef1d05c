import pytest
import torch

from sheafnet.sheaf.maps import DualMap, IdentityMap, RestrictionMap, maps_alike, maps_apart

torch.set_num_threads(1)


def restriction(stalk: int, edge: int, seed: int = 0) -> RestrictionMap:
    return RestrictionMap(stalk, edge, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("stalk", "edge"), [(8, 4), (64, 32), (5, 5), (7, 1), (1, 1)])
def test_rows_start_orthonormal(stalk, edge):
    p = restriction(stalk, edge).weight
    assert p.shape == (edge, stalk)
    assert torch.allclose(p @ p.T, torch.eye(edge), atol=1e-5)


def test_no_direction_is_favoured():
    # E[P^T P] = d_ij / d_i I where the rows are uniform on the sphere.
    mean = torch.stack([p.T @ p for p in (restriction(4, 2, k).weight for k in range(2000))]).mean(
        0
    )
    assert torch.allclose(mean, torch.eye(4) / 2, atol=0.04)


def test_a_projection_is_the_matrix_times_each_section():
    p = restriction(3, 2)
    with torch.no_grad():
        p.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]))
    sections = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, -1.0]])
    assert p(sections).tolist() == [[3.0, 2.0], [2.0, -3.0]]
    assert [name for name, _ in p.named_parameters()] == ["weight"]


def test_maps_are_drawn_from_the_generator_alone():
    torch.manual_seed(1)
    first = restriction(6, 3, seed=5).weight
    torch.manual_seed(2)
    assert torch.equal(first, restriction(6, 3, seed=5).weight)
    assert not torch.equal(first, restriction(6, 3, seed=6).weight)
    generator = torch.Generator().manual_seed(5)
    one, two = RestrictionMap(6, 3, generator).weight, RestrictionMap(6, 3, generator).weight
    assert torch.equal(one, first)
    assert not torch.equal(one, two)


def test_a_dual_starts_as_the_pseudo_inverse():
    p = restriction(6, 3)
    q = DualMap(p)
    projections = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    # Of orthonormal rows the transpose is the pseudo-inverse: P Q = I, and Q P projects.
    assert torch.allclose(p(q(projections)), projections, atol=1e-5)
    assert torch.allclose(q.weight, torch.linalg.pinv(p.weight), atol=1e-5)
    rebuilt = q(p(torch.eye(6)))
    assert torch.allclose(q(p(rebuilt)), rebuilt, atol=1e-5)
    square = restriction(4, 4)
    assert torch.allclose(DualMap(square)(square(torch.eye(4))), torch.eye(4), atol=1e-5)


def test_a_dual_is_affine_and_learns_on_its_own():
    p = restriction(3, 2)
    q = DualMap(p)
    before = q.weight.detach().clone()
    with torch.no_grad():
        p.weight.zero_()
        q.offset.copy_(torch.tensor([1.0, -2.0, 0.5]))
    assert torch.equal(q.weight, before)
    assert q(torch.zeros(2, 2)).tolist() == [[1.0, -2.0, 0.5]] * 2
    assert {name for name, _ in q.named_parameters()} == {"weight", "offset"}
    q(torch.ones(4, 2)).sum().backward()
    assert p.weight.grad is None
    assert q.offset.grad.tolist() == [4.0] * 3
    assert q.weight.grad.tolist() == [[4.0, 4.0]] * 3


def apart(stalk: int, *dims: int, seed: int = 0) -> list[torch.Tensor]:
    maps = maps_apart(stalk, dims, torch.Generator().manual_seed(seed))
    return [p.weight.detach() for p in maps]


@pytest.mark.parametrize(
    ("stalk", "dims"), [(8, (4, 4)), (8, (3, 2, 3)), (64, (32, 32)), (5, (5,))]
)
def test_the_maps_of_a_node_start_orthonormal_together(stalk, dims):
    whole = torch.cat(apart(stalk, *dims))
    assert torch.allclose(whole @ whole.T, torch.eye(sum(dims)), atol=1e-5)


def test_where_the_dimension_is_used_up_each_map_is_orthonormal_alone():
    first, second, third, fourth = apart(8, 4, 3, 2, 8)
    for p in (first, second, third, fourth):
        assert torch.allclose(p @ p.T, torch.eye(len(p)), atol=1e-5)
    assert torch.allclose(first @ second.T, torch.zeros(4, 3), atol=1e-5)
    assert (first @ third.T).abs().max() > 1e-3  # of another basis
    assert torch.equal(apart(8, 4, 3, 2, 8)[2], third)
    assert not torch.equal(apart(8, 4, 3, 2, 8, seed=1)[0], first)


def test_maps_that_start_alike_have_the_same_orthonormal_rows():
    def alike(*dims: int, seed: int = 0) -> list[torch.Tensor]:
        maps = maps_alike(8, dims, torch.Generator().manual_seed(seed))
        assert len({p.weight.data_ptr() for p in maps}) == len(dims)  # and are moved apart freely
        return [p.weight.detach() for p in maps]

    wide, narrow, same = alike(5, 3, 5)
    assert torch.allclose(wide @ wide.T, torch.eye(5), atol=1e-5)
    assert torch.equal(wide, same)
    assert torch.equal(wide[:3], narrow)
    assert not torch.equal(alike(5, 3, 5, seed=1)[0], wide)
    assert alike() == []


def test_in_one_space_sections_cross_as_they_are():
    identity = IdentityMap(3)
    sections = torch.randn(4, 3)
    assert identity(sections) is sections
    assert list(identity.parameters()) == []
    assert torch.equal(DualMap(identity)(sections), sections)
