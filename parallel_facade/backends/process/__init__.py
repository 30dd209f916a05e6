"""Processes of this machine: a private channel to each, and one thread that talks to all."""

from parallel_facade._common.dill_import import import_dill

import_dill()
