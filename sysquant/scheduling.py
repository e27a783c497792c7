"""When models are trained anew: by the clock, by how much is new, by drift, or because one asks.

Input: jobs, the clock, what was measured, and operators' messages. Output: trainings, one at a
time, each once however often it is wanted meanwhile; rows and alerts of what they came to. What ran
and when is in a journal: what was missed while nobody was there is made up for once.
"""

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from sysquant import control
from sysquant.alerts import Alert
from sysquant.control import Answer, Keys, request_id, write_answer
from sysquant.errors import ConfigError, ControlError, nearest
from sysquant.gate import Gate
from sysquant.journal import Journal
from sysquant.keys import check_number
from sysquant.mailbox import Letter, Mailbox
from sysquant.outbox import Outbox, tend
from sysquant.rows import event
from sysquant.stop import StopRequest
from sysquant.times import interval_ns

log = logging.getLogger(__name__)

BOOK = "schedule"  # what messages to it are addressed to
_TURN_S = 0.2
_BACK_OFF_S = 60.0, 3_600.0  # after the first training in vain, and at most
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training that is repeated; at least one of the last four says when.

    Parameters
    ----------
    words : of the command line of `runners/retrain.py`.
    every : like `4h`, at its multiples since 1970 UTC.
    cron : five fields, UTC, like `15 */4 * * *`.
    bars : as soon as so many bars are newer than what was there when it ran last.
    drift : as soon as a feature of the model that serves has this PSI.
    """

    words: tuple[str, ...]
    every: str | None = None
    cron: str | None = None
    bars: int | None = None
    drift: float | None = None

    def triggers(self) -> list[BaseTrigger]:
        """Of the clock.

        Raises
        ------
        ConfigError
            If a value cannot be meant.
        """
        if self.bars is not None:
            check_number("bars", self.bars, least=1, whole=True)
        if self.drift is not None:
            check_number("drift", self.drift, above=0)
        found = list[BaseTrigger]()
        if self.every is not None:
            seconds = interval_ns(self.every, "every") / 1e9
            found.append(IntervalTrigger(seconds=seconds, start_date=_EPOCH, timezone=UTC))  # pyright: ignore[reportArgumentType]
        if self.cron is not None:
            try:
                found.append(CronTrigger.from_crontab(self.cron, timezone=UTC))
            except ValueError as error:
                raise ConfigError(
                    f"cron must be five fields as '15 */4 * * *', was {self.cron!r}: {error}"
                ) from error
        return found


class Outcome(NamedTuple):
    """What a training came to.

    Parameters
    ----------
    code : of its exit; 0 for a model that was published.
    said : its last words.
    until : ts of the newest bar that was there when it began, ns UTC; 0 when that is not known.
    """

    code: int
    said: str
    until: int = 0


FAILED = "training_failed"


class Scheduler:
    """Runs the jobs until it is stopped.

    Parameters
    ----------
    jobs : by name.
    journal, outbox : its own.
    keys, mailboxes : of those who may ask for a training.
    run : trains with words of `runners/retrain.py`; called in a thread, one at a time.
    measure : name of a job, `until` of its last training (0 for none) -> why it is due by what was
        measured; empty for not. Called every `look_s`, in a thread; after a training that
        published nothing, whatever it was, not for a minute, then two, at most an hour.
    tell : is given an alert of each failure.
    fine : exit codes that are no failure.
    """

    def __init__(
        self,
        *,
        jobs: Mapping[str, Job],
        journal: Journal,
        outbox: Outbox,
        keys: Keys,
        mailboxes: Sequence[Mailbox],
        run: Callable[[str, Sequence[str]], Outcome],
        measure: Callable[[str, int], str],
        tell: Callable[[Alert], None],
        look_s: float = 60.0,
        fine: Sequence[int] = (0,),
    ) -> None:
        self._jobs, self._journal, self._outbox = dict(jobs), journal, outbox
        self._keys, self._mailboxes = keys, tuple(mailboxes)
        self._run, self._measure, self._tell = run, measure, tell
        self._look_s, self._fine = look_s, tuple(fine)
        nonces = msgspec.json.decode(journal.meta("nonces") or "{}", type=dict[str, int])
        self._gate = Gate(keys, book=BOOK, journal=journal.id, nonces=nonces)
        self._due: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._wanted = dict[str, str]()  # job -> why, in the order they run
        self._running: tuple[str, Future[Outcome]] | None = None
        self._looking: Future[list[tuple[str, str]]] | None = None
        self._look_at, self._looked = 0.0, 0  # of the last look: monotonic, and ns UTC
        self._worker, self._looker = (ThreadPoolExecutor(1, name) for name in ("train", "look"))
        self._clock = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._triggers = {name: job.triggers() for name, job in self._jobs.items()}
        for name, triggers in self._triggers.items():
            for trigger in triggers:
                self._clock.add_job(
                    self._due.put, trigger, args=[(name, f"by the clock, {trigger}")]
                )
                if self._is_missed(name, trigger):
                    self._wanted[name] = f"missed while nobody was there, {trigger}"
            if self._is_cut_off(name):
                self._wanted[name] = "the training before was cut off"

    # -- when

    def _ran(self, name: str) -> tuple[int, int]:
        # When the last training began and ended, ns; at first, when the job was first seen.
        key = f"job/{name}"
        known = self._journal.meta(key)
        if known is None:
            now = time.time_ns()
            known = f"{now} {now}"
            self._journal.remember(**{key: known})
        began, ended = known.split()
        return int(began), int(ended)

    def _is_missed(self, name: str, trigger: BaseTrigger) -> bool:
        # Told of no time before, an interval counts from its own start and not from that.
        last = datetime.fromtimestamp(self._ran(name)[0] / 1e9, UTC) + timedelta(microseconds=1)
        due: Any = trigger.get_next_fire_time(None, last)  # pyright: ignore[reportArgumentType]
        return due is not None and due <= datetime.now(UTC)

    def _is_cut_off(self, name: str) -> bool:
        began, ended = self._ran(name)
        return ended < began

    def _next(self, name: str) -> int:
        # By the clock, ns UTC; 0 where that does not say when.
        now = datetime.now(UTC)
        found: list[Any] = [
            one.get_next_fire_time(None, now)  # pyright: ignore[reportArgumentType]
            for one in self._triggers[name]
        ]
        return min((round(one.timestamp() * 1e9) for one in found if one is not None), default=0)

    def _plan(self, name: str) -> str:
        # When a job runs, for people.
        job, at, when = self._jobs[name], self._next(name), list[str]()
        if name in self._wanted:
            when.append(f"now ({self._wanted[name]})")
        if at:
            when.append(f"{datetime.fromtimestamp(at / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC")
        if job.bars is not None:
            when.append(f"after {job.bars:,} new bars")
        if job.drift is not None:
            when.append(f"at a drift of {job.drift:g}")
        return ", ".join(when) or "when it is asked for"

    def _is_held(self, name: str) -> bool:
        # What was measured stays so where nothing was published: ever longer until the next one.
        vain, (first_s, most_s) = int(self._journal.meta(f"vain/{name}") or 0), _BACK_OFF_S
        wait_s = min(first_s * 2 ** min(vain - 1, 30), most_s) if vain else 0.0
        return time.time_ns() - self._ran(name)[1] < wait_s * 1e9

    # -- the session

    def run(self, stop: StopRequest) -> None:
        """Go on until a signal; a training that runs then is ended, and made up for.

        Raises
        ------
        JournalError
            If the journal cannot be written.
        """
        for mailbox in self._mailboxes:
            mailbox.seek(self._journal.meta(f"mailbox/{mailbox.name}"))
        self._outbox.send(self._journal.sealed())
        self._clock.start()
        for name, job in self._jobs.items():
            log.info("job=%s words=%s next: %s", name, " ".join(job.words), self._plan(name))
        try:
            while not stop.reason:
                self._turn()
                time.sleep(_TURN_S)
        finally:
            self._clock.shutdown(wait=False)
            for mailbox in self._mailboxes:
                mailbox.close()
            self._outbox.send(self._journal.commit(None, {}, seal_all=True))
            self._outbox.flush(2.0)
            self._journal.commit(None, {}, sent=self._outbox.arrived())
            for pool in (self._worker, self._looker):
                pool.shutdown(wait=False, cancel_futures=True)
            self._outbox.close(0.5)
            self._journal.close()

    def _turn(self) -> None:
        while not self._due.empty():
            name, why = self._due.get()
            self._wanted.setdefault(name, why)
        self._look()
        for mailbox in self._mailboxes:
            letters = mailbox.take()
            if letters:
                self._hear(letters, mailbox)
        self._end()
        if self._running is None and self._wanted:
            self._begin(next(iter(self._wanted)))
        self._outbox.check()
        tend(self._journal, self._outbox)

    def _look(self) -> None:
        # Beside, for the store may be slow.
        if self._looking is not None and self._looking.done():
            for name, why in self._looking.result():
                if self._ran(name)[0] < self._looked:  # or it was trained on what was seen
                    self._wanted.setdefault(name, why)
            self._looking = None
        is_idle = self._running is None and self._looking is None and not self._wanted
        if is_idle and time.monotonic() - self._look_at >= self._look_s:
            self._look_at, self._looked = time.monotonic(), time.time_ns()
            marks = {name: self._journal.meta(f"until/{name}") or 0 for name in self._jobs}
            since = {name: int(at) for name, at in marks.items() if not self._is_held(name)}
            self._looking = self._looker.submit(self._measured, since)

    def _measured(self, since: Mapping[str, int]) -> list[tuple[str, str]]:
        found = [(name, self._measure(name, at)) for name, at in since.items()]
        return [(name, why) for name, why in found if why]

    def _begin(self, name: str) -> None:
        why = self._wanted.pop(name)
        now = time.time_ns()
        log.info("training job=%s why=%s", name, why)
        row = event(self._journal.id, now, "training", f"{name}: {why}", strategy=name)
        ran = {f"job/{name}": f"{now} 0"}
        self._outbox.send(self._journal.commit(None, {"events": row}, notes=ran))
        self._running = name, self._worker.submit(self._run, name, self._jobs[name].words)

    def _end(self) -> None:
        if self._running is None or not self._running[1].done():
            return
        (name, training), self._running = self._running, None
        outcome, now = training.result(), time.time_ns()
        is_fine = outcome.code in self._fine
        kind = "trained" if is_fine else FAILED
        detail = f"{name}: {outcome.said or f'ended with code {outcome.code}'}"
        log.log(logging.INFO if is_fine else logging.ERROR, "%s %s", kind, detail)
        row = event(self._journal.id, now, kind, detail, strategy=name)
        vain = int(self._journal.meta(f"vain/{name}") or 0) + 1 if outcome.code else 0
        ran = {f"job/{name}": f"{self._ran(name)[0]} {now}", f"vain/{name}": str(vain)}
        if outcome.until:
            ran[f"until/{name}"] = str(outcome.until)
        self._outbox.send(self._journal.commit(None, {"events": row}, notes=ran))
        if not is_fine:
            self._tell(Alert(BOOK, kind, detail, now))

    # -- who asks

    def _hear(self, letters: Sequence[Letter], mailbox: Mailbox) -> None:
        answers, now = dict[str, bytes](), time.time_ns()
        for letter in letters:
            request = request_id(letter.raw)
            answer = self._answered(letter, now)
            given = answers.get(request) or self._journal.answer(request)
            answers[request] = given or write_answer(answer, self._keys, letter.raw)
        nonces = msgspec.json.encode(self._gate.nonces(now)).decode()
        notes = {"nonces": nonces, f"mailbox/{mailbox.name}": letters[-1].mark}
        self._outbox.send(self._journal.commit(None, {}, notes=notes, answers=answers))
        mailbox.answer(answers)

    def _answered(self, letter: Letter, now: int) -> Answer:
        request = request_id(letter.raw)
        try:
            message = self._gate.admit(letter.raw, letter.arrived or now, now)
            if isinstance(message.command, control.Status):
                return Answer(request, True, "", status=self.status())
            if not isinstance(message.command, control.Retrain):
                raise ControlError(f"{message.command.word()} is for a book, this is the schedule")
            name = message.command.job
            if name not in self._jobs:
                raise ControlError(f"the schedule has no {name!r}{nearest(name, self._jobs)}")
        except ControlError as error:
            log.warning("refused message reason=%s", error)
            return Answer(request, False, str(error))
        self._wanted.setdefault(name, f"asked for by {message.issuer}")
        is_running = self._running is not None
        return Answer(request, True, f"{name} is trained {'next' if is_running else 'now'}")

    def status(self) -> dict[str, object]:
        """The jobs: when each ran last, what is wanted, and when it is due by the clock."""
        jobs = {
            name: {
                "began": self._ran(name)[0], "ended": self._ran(name)[1],
                "running": self._running is not None and self._running[0] == name,
                "wanted": self._wanted.get(name, ""), "next": self._next(name),
            }
            for name in self._jobs
        }  # fmt: skip
        return {"book": BOOK, "journal": self._journal.id, "jobs": jobs}
