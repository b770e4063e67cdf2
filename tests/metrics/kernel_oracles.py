"""The kernel-alignment metrics written down plainly: full matrices, float64, Python loops."""

import numpy as np
import scipy.linalg


def unit(vectors):
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(vectors, k):
    cosines = unit(vectors) @ unit(vectors).T
    lists = []
    for i, row in enumerate(cosines):
        order = sorted((j for j in range(len(row)) if j != i), key=lambda j, row=row: -row[j])
        lists.append(order[:k])
    return lists


def mutual_knn(x, y, k):
    pairs = zip(neighbours(x, k), neighbours(y, k), strict=True)
    return np.mean([len(set(a) & set(b)) / k for a, b in pairs])


def cycle_knn(x, y, k):
    x_near, y_near = neighbours(x, k), neighbours(y, k)
    return np.mean([any(i in x_near[j] for j in near) for i, near in enumerate(y_near)])


def lcs_knn(x, y, k):
    def longest(a, b):
        if not a or not b:
            return 0
        if (len(a), len(b)) not in known:
            if a[-1] == b[-1]:
                known[len(a), len(b)] = longest(a[:-1], b[:-1]) + 1
            else:
                known[len(a), len(b)] = max(longest(a[:-1], b), longest(a, b[:-1]))
        return known[len(a), len(b)]

    lengths = []
    for a, b in zip(neighbours(x, k), neighbours(y, k), strict=True):
        known = {}
        lengths.append(longest(a, b) / k)
    return np.mean(lengths)


def edit_distance_knn(x, y, k):
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        if (len(a), len(b)) not in known:
            known[len(a), len(b)] = min(
                distance(a[:-1], b) + 1,
                distance(a, b[:-1]) + 1,
                distance(a[:-1], b[:-1]) + (a[-1] != b[-1]),
            )
        return known[len(a), len(b)]

    distances = []
    for a, b in zip(neighbours(x, k), neighbours(y, k), strict=True):
        known = {}
        distances.append(distance(a, b) / k)
    return 1 - np.mean(distances)


def cka(x, y):
    def hsic(kernel, other):
        centring = np.eye(len(kernel)) - 1 / len(kernel)
        return np.trace(kernel @ centring @ other @ centring)

    return _normalised(hsic, unit(x) @ unit(x).T, unit(y) @ unit(y).T)


def unbiased_cka(x, y):
    return _normalised(_unbiased_hsic, unit(x) @ unit(x).T, unit(y) @ unit(y).T)


def cknna(x, y, k):
    def mask(vectors):
        result = np.zeros((len(vectors), len(vectors)))
        for i, near in enumerate(neighbours(vectors, k)):
            result[i, near] = 1
        return result

    kernels = {name: unit(v) @ unit(v).T for name, v in (("x", x), ("y", y))}
    masks = {"x": mask(x), "y": mask(y)}

    def similarity(a, b):
        common = masks[a] * masks[b]
        return _unbiased_hsic(common * kernels[a], common * kernels[b])

    return similarity("x", "y") / np.sqrt(similarity("x", "x") * similarity("y", "y"))


def svcca(x, y, dim):
    """Canonical correlations as the generalised eigenvalue problem of the covariances."""

    def directions(vectors):
        vectors = unit(vectors)
        scaled = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
        return scaled @ np.linalg.eigh(scaled.T @ scaled)[1][:, -dim:]

    a, b = directions(x), directions(y)
    cross = a.T @ b @ np.linalg.solve(b.T @ b, b.T @ a)
    squares = scipy.linalg.eigh(cross, a.T @ a, eigvals_only=True)
    return np.mean(np.sqrt(squares))


def _unbiased_hsic(kernel, other):
    m = len(kernel)
    kernel = kernel - np.diag(np.diag(kernel))
    other = other - np.diag(np.diag(other))
    ones = np.ones(m)
    total = np.trace(kernel @ other)
    total += (ones @ kernel @ ones) * (ones @ other @ ones) / ((m - 1) * (m - 2))
    total -= 2 * (ones @ kernel @ other @ ones) / (m - 2)
    return total / (m * (m - 3))


def _normalised(hsic, kernel, other):
    return hsic(kernel, other) / np.sqrt(hsic(kernel, kernel) * hsic(other, other))
