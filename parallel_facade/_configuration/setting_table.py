"""The table of all settings: type, checks, default, and what the reference says about each.

Settings, their environment variables, the options of the verbs that are settings and the table in
the reference follow from it. To add a setting, add a row here, its type in `setting_types`, and
the argument in `_api.verbs`: of a map in both `pmap` and `imap`. Methods of `Pool` take it by
itself; `_api.pool` only has the arguments of ``Pool()``.
"""
# Annotations are evaluated: they hold the table.

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple

from parallel_facade._configuration.backend_registry import BUILT_IN
from parallel_facade._configuration.setting_checks import (
    LONGEST_DELAY,
    Setting,
    backend_like,
    delay,
    module_names,
    one_of,
    parse_progress,
    parse_switch,
    progress_like,
    switch,
    time_limit,
    whole_number,
)

START_METHODS: Final = ("forkserver", "spawn", "fork")
SERIALIZERS: Final = ("dill", "pickle")
POSITIVE: Final = "a whole number of at least 1"
SECONDS: Final = "a number of seconds above 0 (inf for no limit)"


class Config(NamedTuple):
    """The settings in force, each already checked.

    Attributes:
        backend: A back-end's name, a `Backend`, or a `concurrent.futures.Executor`.
        workers: Maximum number of workers; `None` means all workers of a cluster or an executor.
            On this machine it is a number, `cpu_count()` if none was given.
        start_method: How worker processes start; `None` takes the platform's safe method.
        inner_threads: Threads that libraries such as BLAS and OpenMP use in each worker process;
            0 sets no limit, `None` means the worker's share of the CPUs.
        chunksize: Items that one worker begins together; `None` is 1.
        timeout: Seconds for a whole call; `None` for no limit.
        task_timeout: Seconds for one task; `None` for no limit.
        retries: Additional attempts after the first.
        retry_delay: Seconds between two attempts.
        progress: `False`, `True`, a description, or a callable.
        seed: Seeds one random stream per item; `None` leaves random state alone.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library only.
        by_value: Names of modules and packages to send by value, because workers do not have them.
        start_timeout: Seconds that a cluster may be without workers; infinity for no limit.
        relay: Whether log records, printed text and warnings of tasks in other processes reach the
            caller's handlers, streams and filters.

    >>> from parallel_facade import config
    >>> with config(retries=2) as settings:
    ...     settings.retries, settings.serializer
    (2, 'dill')
    """

    backend: Annotated[
        Any,
        Setting(
            backend_like,
            str,
            "a back-end's name, a Backend, or a concurrent.futures.Executor",
            "process",
            f"{', '.join(f'`{name}`' for name in BUILT_IN)} (see below), a plug-in's "
            "name; in code also a `Backend`, a `Pool`, a `distributed.Client` or any executor of "
            "`concurrent.futures`",
            "`process`",
        ),
    ]
    workers: Annotated[
        int | None,
        Setting(
            whole_number(1),
            int,
            POSITIVE,
            None,
            POSITIVE,
            "`cpu_count()`; as many as a cluster or an executor has",
        ),
    ]
    start_method: Annotated[
        str | None,
        Setting(
            one_of(*START_METHODS),
            str,
            f"one of {', '.join(START_METHODS)}",
            None,
            "`forkserver`, `spawn`, `fork`",
            "`forkserver`; `spawn` on systems other than Linux",
        ),
    ]
    inner_threads: Annotated[
        int | None,
        Setting(
            whole_number(0),
            int,
            "a whole number of at least 0 (0 for no limit)",
            None,
            "a whole number; 0 for no limit",
            "the worker's share of the CPUs",
        ),
    ]
    chunksize: Annotated[
        int | None,
        Setting(whole_number(1), int, POSITIVE, None, POSITIVE, "1", holds_in_tasks=True),
    ]
    timeout: Annotated[
        float | None,
        Setting(
            time_limit,
            float,
            SECONDS,
            None,
            "seconds for the whole call, above 0; `inf` for no limit",
            holds_in_tasks=True,
        ),
    ]
    task_timeout: Annotated[
        float | None, Setting(time_limit, float, SECONDS, None, "seconds for one item, above 0")
    ]
    retries: Annotated[
        int,
        Setting(
            whole_number(0),
            int,
            "a whole number of at least 0",
            0,
            "a whole number of at least 0",
            "0",
            holds_in_tasks=True,
        ),
    ]
    retry_delay: Annotated[
        float,
        Setting(
            delay,
            float,
            f"a number of seconds from 0 to {LONGEST_DELAY:.0f}",
            0.0,
            f"seconds between two attempts, from 0 to {LONGEST_DELAY:.0f}",
            "0",
            holds_in_tasks=True,
        ),
    ]
    progress: Annotated[
        bool | str | Callable[..., object],
        Setting(
            progress_like,
            parse_progress,
            "True, False, a description, or a callable",
            False,
            "`1`, `0` (or `yes`, `no`, `true`, `false`, `on`, `off`), or a description; in code "
            "also a callable. See [how to show it](../how-to/show-progress.md)",
            "`False`",
        ),
    ]
    seed: Annotated[
        int | None,
        Setting(
            whole_number(None), int, "a whole number", None, "a whole number", holds_in_tasks=True
        ),
    ]
    serializer: Annotated[
        str,
        Setting(
            one_of(*SERIALIZERS),
            str,
            f"one of {', '.join(SERIALIZERS)}",
            "dill",
            "`dill`, `pickle`",
            "`dill`",
            holds_in_tasks=True,
        ),
    ]
    by_value: Annotated[
        tuple[str, ...],
        Setting(
            module_names,
            str,
            "names of modules or packages, as in an import",
            (),
            "modules and packages that workers lack, so that their code is sent along; separated "
            "by commas",
            holds_in_tasks=True,
        ),
    ]
    start_timeout: Annotated[
        float,
        Setting(
            time_limit,
            float,
            SECONDS,
            60.0,
            "seconds that a cluster may be without workers",
            "60",
        ),
    ]
    relay: Annotated[
        bool,
        Setting(
            switch,
            parse_switch,
            "True or False",
            True,
            "`1`, `0`: whether [log records, prints and warnings of "
            "tasks](../how-to/see-what-tasks-say.md) reach the caller",
            "`True`",
            holds_in_tasks=True,
        ),
    ]


SETTINGS: Final[dict[str, Setting]] = {
    name: row.__metadata__[0] for name, row in Config.__annotations__.items()
}
"""By name, in the order of the reference."""
