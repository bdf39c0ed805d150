"""Distance of embeddings from the dense model's, against a loop over cosines."""

import pytest
import torch

from evaluators.comparison import PAIRS_OF_EMBEDDINGS, constant_cosine, cosine_agreement, cosine_distance


def embeddings(seed: int, *, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(9, 8, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("count", [1, 2, 4])
def test_is_the_mean_over_the_embeddings_of_a_target(count: int) -> None:
    dense, other = embeddings(0), embeddings(1)
    expected = []
    for left, right in zip(dense, other, strict=True):
        pairs = zip(left.chunk(count), right.chunk(count), strict=True)
        expected.append(sum(1 - float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs) / count)
    torch.testing.assert_close(cosine_distance(dense, other, embeddings=count), torch.tensor(expected).double())


def test_agreement_is_exactly_1_with_itself_whatever_the_length_and_0_where_it_points_away() -> None:
    dense = embeddings(0)
    assert PAIRS_OF_EMBEDDINGS.agreement(dense, dense).eq(1).all()
    assert PAIRS_OF_EMBEDDINGS.divergence(dense, dense).eq(0).all()
    torch.testing.assert_close(cosine_agreement(dense, 3 * dense), torch.ones(9).double())
    assert cosine_agreement(dense, -dense).eq(0).all()


def test_no_direction_is_nearer_to_all_than_the_constant_one() -> None:
    dense = embeddings(0, shift=0.5)
    best = constant_cosine(dense, embeddings=2)
    vectors = dense.double().reshape(-1, 4)
    cosines = [
        float(
            torch.cosine_similarity(vectors, torch.randn(4, generator=torch.Generator().manual_seed(n)), dim=1).mean()
        )
        for n in range(300)
    ]
    assert best - 0.1 < max(cosines) <= best
    assert constant_cosine(torch.ones(3, 4)) == pytest.approx(1)


def test_a_broken_output_shows() -> None:
    dense, other = embeddings(0), embeddings(1)
    other[2, 3] = float("nan")
    assert cosine_agreement(dense, other).isnan().tolist() == [row == 2 for row in range(9)]
