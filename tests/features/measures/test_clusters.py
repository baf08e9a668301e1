import numpy as np
import pytest

from bisae.features.measures.clusters import FeatureClusters, GlobalClusters, TokenCounts, centred, global_clusters


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def feature_counts(tokens: list[np.ndarray]) -> TokenCounts:
    owners = np.repeat(np.arange(len(tokens)), [len(own) for own in tokens])
    return TokenCounts.of(owners, np.concatenate(tokens), len(tokens))


def partition(labels: np.ndarray) -> list[int]:
    """Labels by first appearance, to compare two clusterings."""
    seen: dict[int, int] = {}
    return [seen.setdefault(label, len(seen)) for label in labels.tolist()]


@pytest.mark.parametrize(
    ("method", "linkage", "distance"),
    [("average", "average", 0.2), ("average", "average", 0.8), ("components", "single", 0.1)],
)
def test_each_feature_is_clustered_as_scikit_learn_does(method: str, linkage: str, distance: float) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    random = np.random.default_rng(0)
    vectors = unit(random.normal(size=(80, 5)))
    tokens = [random.choice(80, size, replace=False) for size in (50, 0, 1, 2, 30, 12, 3)]
    counts = feature_counts(tokens)
    labels = FeatureClusters(vectors, method, distance).entry_clusters(counts)
    for start, end in zip(counts.offsets, counts.offsets[1:], strict=False):
        if end - start > 1:
            peer = cluster.AgglomerativeClustering(None, metric="cosine", linkage=linkage, distance_threshold=distance)
            assert partition(labels[start:end]) == partition(peer.fit_predict(vectors[counts.tokens[start:end]]))
    assert 1 < len(set(labels[:50])) < 50  # neither all apart nor all in one


def test_average_linkage_keeps_apart_what_only_a_chain_joins() -> None:
    angles = np.radians([0, 50, 100, 150])  # neighbours are 0.36 apart, the ends 1.87
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    counts = feature_counts([np.arange(4)])
    assert len(set(FeatureClusters(vectors, "components", 0.4).entry_clusters(counts).tolist())) == 1
    assert len(set(FeatureClusters(vectors, "average", 0.4).entry_clusters(counts).tolist())) == 2


def test_a_global_cluster_is_looked_up_by_the_token() -> None:
    clustering, counts = GlobalClusters(np.array([7, 7, 2, 4], np.int32)), feature_counts([np.array([0, 1, 3])])
    assert clustering.entry_clusters(counts).tolist() == [7, 7, 4]


def test_vectors_of_one_direction_are_one_cluster_numbered_as_they_appear() -> None:
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.normal(size=(16, 16)))[0][:5]
    meant = np.array([0, 1, 0, 2, 3, 1, 4, 4, 2, 3, 0])
    lengths = random.uniform(0.5, 2, (len(meant), 1))
    embeddings = directions[meant] * lengths + 0.01 * random.normal(size=(len(meant), 16))
    assert global_clusters(embeddings, distance=0.4).tolist() == meant.tolist()


def test_what_all_tokens_have_in_common_joins_none_once_it_is_subtracted() -> None:
    embeddings = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:6] + 50
    assert set(global_clusters(embeddings, distance=0.4).tolist()) == {0}
    assert global_clusters(centred(embeddings, embeddings.mean(0)), distance=0.4).tolist() == list(range(6))
    assert np.linalg.norm(centred(embeddings, embeddings.mean(0)), axis=1) == pytest.approx(1)


def test_a_greater_distance_joins_more() -> None:
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    clusters = [len(set(global_clusters(embeddings, distance).tolist())) for distance in (0.01, 0.3, 0.8)]
    assert 30 >= clusters[0] > clusters[1] > clusters[2] >= 2
