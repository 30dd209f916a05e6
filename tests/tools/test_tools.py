"""The tools that people use already, each as itself."""

import asyncio

import numpy as np
import pytest

from parallel_facade import Pool, imap, pmap


@pytest.fixture(scope="module")
def pool():
    with Pool(backend="process", workers=2) as pool:
        yield pool


def test_scipy_takes_the_map_of_a_pool(pool):
    optimize = pytest.importorskip("scipy.optimize")
    centre = np.array([1.0, -2.0])

    def solve(workers):
        return optimize.differential_evolution(
            lambda x: float(((x - centre) ** 2).sum()),
            [(-5, 5), (-5, 5)],
            workers=workers,
            updating="deferred",
            rng=1,
        )

    assert np.allclose(solve(pool.map).x, centre, atol=1e-4)
    assert np.array_equal(solve(pool.map).x, solve(map).x)


def test_scipy_differentiates_on_a_pool(pool):
    optimize = pytest.importorskip("scipy.optimize")

    found = optimize.minimize(
        lambda x: float(((x - 3) ** 2).sum()),
        [0.0, 0.0],
        method="BFGS",
        options={"workers": pool.map},
    )

    assert np.allclose(found.x, 3, atol=1e-4)


def test_emcee_takes_a_pool(pool):
    emcee = pytest.importorskip("emcee")
    mean = 2.0

    def sample(pool):
        sampler = emcee.EnsembleSampler(
            8, 1, lambda x: -0.5 * float(((x - mean) ** 2).sum()), pool=pool
        )
        sampler.random_state = np.random.RandomState(1).get_state()
        sampler.run_mcmc(np.random.RandomState(2).normal(size=(8, 1)), 50)
        return sampler.get_chain(flat=True)

    assert np.array_equal(sample(pool), sample(None))


def test_scikit_learn_runs_on_it():
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.datasets import make_regression
    from sklearn.model_selection import GridSearchCV, cross_val_score

    from parallel_facade.joblib import register

    class Shrunk(RegressorMixin, BaseEstimator):
        """An estimator of the test's own, which is in no module that workers import."""

        def __init__(self, by=0.0):
            self.by = by

        def fit(self, X, y):
            gram = X.T @ X + self.by * np.eye(X.shape[1])
            self.coef_ = np.linalg.solve(gram, X.T @ y)
            return self

        def predict(self, X):
            return X @ self.coef_

    register()
    X, y = make_regression(60, 5, noise=1.0, random_state=0)
    alone = GridSearchCV(Shrunk(), {"by": [0.0, 1.0, 100.0]}, cv=3).fit(X, y)
    with joblib.parallel_config(backend="parallel_facade", n_jobs=2):
        search = GridSearchCV(Shrunk(), {"by": [0.0, 1.0, 100.0]}, cv=3).fit(X, y)
        scores = cross_val_score(Shrunk(), X, y, cv=3)

    assert type(search.best_estimator_) is Shrunk
    assert search.best_params_ == alone.best_params_
    assert np.allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert np.allclose(scores, cross_val_score(Shrunk(), X, y, cv=3))


def test_scikit_learn_nests_on_it():
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    from parallel_facade.joblib import register

    register()
    X, y = make_classification(60, random_state=0)
    with joblib.parallel_config(backend="parallel_facade", n_jobs=2):
        search = GridSearchCV(
            RandomForestClassifier(n_estimators=4, n_jobs=2, random_state=0),
            {"max_depth": [1, 2]},
            cv=2,
        ).fit(X, y)

    assert search.best_score_ > 0.5


def test_pandas_groups_are_items():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"team": ["a", "b", "a", "b"], "points": [1, 2, 3, 4]})

    def scaled(group):
        return group.assign(share=group["points"] / group["points"].sum())

    keys, groups = zip(*frame.groupby("team"), strict=True)
    found = pd.concat(pmap(scaled, groups, backend="process", workers=2), keys=keys)

    expected = pd.concat({key: scaled(group) for key, group in frame.groupby("team")})
    pd.testing.assert_frame_equal(found, expected)


def test_optuna_asks_and_is_told():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"x": optuna.distributions.FloatDistribution(-10, 10)}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))

    for _ in range(5):
        trials = [study.ask(space) for _ in range(4)]
        values = pmap(
            lambda trial: (trial["x"] - 2) ** 2,
            [trial.params for trial in trials],
            backend="process",
            workers=2,
        )
        for trial, value in zip(trials, values, strict=True):
            study.tell(trial, value)

    assert len(study.trials) == 20
    assert study.best_value == (study.best_params["x"] - 2) ** 2


def test_dask_takes_a_pool_as_its_scheduler(pool):
    dask = pytest.importorskip("dask")

    def double(x):
        return 2 * x

    total = dask.delayed(sum)([dask.delayed(double)(x) for x in range(5)])

    assert total.compute(scheduler=pool) == 20


def test_asyncio_takes_a_pool_as_its_executor(pool):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(pool, lambda x=x: x * x) for x in range(5))
        )

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_tqdm_knows_how_many_results_there_are(capsys):
    tqdm = pytest.importorskip("tqdm")

    with imap(abs, range(5), backend="thread", workers=2) as results:
        assert list(tqdm.tqdm(results)) == list(range(5))

    assert "5/5" in capsys.readouterr().err
