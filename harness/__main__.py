"""`python -m harness +scope=SCOPE [key=value ...]`: run one scope, or several with `-m`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, not_installed

try:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf
    from rich.console import Console
except ModuleNotFoundError as missing:
    not_installed(missing)

from harness import settings, usage
from harness.processes import terminate_like_interrupt
from harness.record import utc_now
from harness.report import screen
from harness.sweep import Outcome, close


@dataclass
class Session:
    """One call of the command: its jobs so far, and the folder of its sweep if it is one."""

    out: Console = field(default_factory=screen)
    outcomes: list[Outcome] = field(default_factory=list)
    outputs: Path | None = None
    sweep_folder: Path | None = None

    def make_sweep_folder(self, outputs: Any) -> str:
        """The resolver behind hydra.sweep.dir, called before any job is checked."""
        settings.check({"outputs": outputs}, {"outputs": settings.FOLDER})
        self.outputs = Path(outputs)
        self.sweep_folder = self.outputs / "sweeps" / utc_now()
        return str(self.sweep_folder)

    def job(self, cfg: DictConfig) -> None:
        """One job. Its failure is noted and not raised, so that the others of a sweep still run."""
        from harness import choices, dry_run, plan  # here, and not above, for --help to answer at once

        record, error, scope, overrides = None, None, "", []
        try:
            scope, overrides = str(cfg.name), list(HydraConfig.get().overrides.task)
            if cfg.name is None:
                raise choices.nameless()
            made = plan.make(cfg)
            choices.check(cfg)
            if cfg.dry_run:
                dry_run.show_commands(made, self.out)
            else:
                from harness import run  # which takes longest of all to import: mistakes are told before

                record = run.execute(made, [sys.executable, *sys.orig_argv[1:]], overrides, self.out)
                error = run.error_of(record)
        except Exception as problem:
            error = usage.explain(problem)
        if error:
            print(error.report(), file=sys.stderr)
        self.outcomes.append(Outcome(scope, overrides, record, error))
        if error and error.exit_code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt

    def exit_code(self) -> int:
        return next((o.exit_code for o in reversed(self.outcomes) if o.error), ExitCode.OK)


def main() -> int:
    # Hydra prints tracebacks of its own unless it is told to raise.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = usage.quote_paths(sys.argv[1:])
    session = Session()
    usage.register_resolvers()
    OmegaConf.register_new_resolver(
        "harness.sweep_folder", session.make_sweep_folder, use_cache=True, replace=True
    )
    start = hydra.main(config_path=str(usage.CONF), config_name="config", version_base="1.3")(session.job)
    code: int | None = None
    with terminate_like_interrupt():
        try:
            start()
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        except Exception as error:
            problem = usage.explain(error)
            print(problem.report(), file=sys.stderr)
            code = problem.exit_code
    if session.sweep_folder and session.outputs and session.sweep_folder.exists():
        close(session.sweep_folder, session.outcomes, session.outputs, session.out)
    return session.exit_code() if code is None else code


if __name__ == "__main__":
    sys.exit(main())
