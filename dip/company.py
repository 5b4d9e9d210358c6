"""Recorded fits in threads that go on together: they meet, and one thread has their iterations replayed at once.

What is won is that a GPU begins fewer kernels (`dip.merged`), and that Python has one thing to do where it had many.
What it costs is that they wait for each other: for all to be recorded, so that they are at the same iteration and look
at something at the same times, and after that at every meeting, for a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dip import compared
from dip.errors import warn

if TYPE_CHECKING:
    from dip.recorder import Joined, Recorder
    from dip.replay import Replay
    from dip.solver import Fit

__all__ = ["Company"]

_BEGINNING = 60.0  # seconds that a fit waits for others to be made and recorded
# And for those that were there before: time enough to make a code anew, which all do at the same iteration. More would
# be lost where one waits for what another does only later.
_PATIENCE = 2.0
_LEAST, _SHORT = 8, 4  # meetings in a row for fewer iterations than that, after which they do not meet any more


class _Member:
    """A fit, and for how many iterations it is there."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
        self.made: Replay | None = None  # None while it is to be recorded
        self.place: Any = None
        self.count = 0
        self.done: int | None = 0  # None while it waits
        self.is_out = False  # it was waited for in vain, or is never recorded


class Company:
    """Fits that run at a time, each in a thread, and go on together where they can.

    Parameters
    ----------
    size : int
        How many there are at a time. Others join when all of them have ended.

    Attributes
    ----------
    together : int
        Iterations that were done together, each counted once.
    """

    def __init__(self, size: int) -> None:
        self._size = self._room = size
        self._at_the_door, self._ended = 0, False
        self._turn = threading.Condition()
        self._members: dict[object, _Member] = {}
        self._joined: Joined | None = None
        self._apart = False  # those who are there do not go on together
        self._failed = False  # nor does anybody
        self._warned = False
        self._short = self.together = 0

    def no_more(self) -> None:
        """Say that nobody comes any more."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()

    @contextlib.contextmanager
    def joined(self, fit: Fit) -> Iterator[None]:
        """Let a fit be one of them for the time of its run."""
        replays = fit._replays
        with self._turn:
            self._at_the_door += 1
            self._turn.wait_for(lambda: self._room)
            self._at_the_door, self._room = self._at_the_door - 1, self._room - 1
            self._members[replays] = _Member()
            self._change()
        replays.company = self
        try:
            yield
        finally:
            replays.company = None
            with self._turn:
                del self._members[replays]
                self._room = self._room if self._members else self._size
                self._change()
                self._release()

    def part(self, replays: object) -> None:
        """Let go of a fit's recording, which is given up: the fit is to be recorded anew."""
        with self._turn:
            self._members[replays] = _Member()
            self._change()

    def is_alone(self, fit: Fit) -> None:
        """Say that a fit is not recorded."""
        with self._turn:
            own = self._members[fit._replays]
            if not own.is_out:
                own.is_out = True
                self._release()
                if not self._warned:
                    warn(f"{fit!r} is not recorded as a CUDA graph, so that those beside it are not merged with it")
                self._warned = True

    def go_on(self, fit: Fit, made: Replay, count: int) -> int:
        """Do up to so many iterations of a fit together with the others; return how many were done, which may be none.

        Parameters
        ----------
        fit : Fit
            Whose they are.
        made : Replay
            Its recording.
        count : int
            How many may be done in a row.
        """
        with self._turn:
            own = self._members[fit._replays]
            own.is_out = False
            if own.made is not made:
                own.fit, own.made = fit, made
                self._change()
            if (
                self._failed
                or self._apart
                or len(self._members) + self._to_come() < 2
                or any(one.is_out for one in self._others(own))
            ):
                return 0
            own.place, own.count, own.done = made.device.here(), count, None
            self._turn.notify_all()
            return self._waited(own)

    def _others(self, own: _Member) -> Iterator[_Member]:
        yield from (one for one in self._members.values() if one is not own)

    def _to_come(self) -> int:
        return min(self._room, self._at_the_door) if self._ended else self._room

    def _is_gathering(self) -> bool:
        """Tell whether somebody is still to come, or to be recorded."""
        return self._to_come() > 0 or any(one.made is None and not one.is_out for one in self._members.values())

    def _waited(self, own: _Member) -> int:
        """Wait for the others, or do what all of them are there for; return how many iterations were done."""
        while own.done is None:
            gathering = self._is_gathering()
            if not gathering and all(one.done is None for one in self._members.values()):
                self._meet(own)
                continue

            def changes(gathering: bool = gathering) -> bool:
                return own.done is not None or self._is_gathering() != gathering

            if not self._turn.wait_for(changes, _BEGINNING if gathering else _PATIENCE):
                self._room = 0
                for one in self._members.values():
                    one.is_out = one.is_out or one.done is not None
                self._release()
        return own.done

    def _change(self) -> None:
        """Begin anew: they are others."""
        if self._joined is not None:
            self._joined.close()
        self._joined, self._apart, self._short = None, False, 0
        self._turn.notify_all()

    def _release(self, count: int = 0) -> None:
        """Let those go on who wait, after so many iterations."""
        for one in self._members.values():
            one.done = count if one.done is None else one.done
        self._turn.notify_all()

    def _meet(self, own: _Member) -> None:
        """Do what they are there for; all of them wait."""
        count, done = min(one.count for one in self._members.values()), 0
        self._short = 0 if count >= _LEAST else self._short + 1
        self._apart = self._short == _SHORT
        try:
            if not self._apart:
                with self._all_at_one_place(own) as made:
                    if self._made(made):
                        self._replay(made, count)
                        done = count
        finally:
            self._release(done)

    def _made(self, made: list[tuple[Fit, Replay]]) -> bool:
        """Make one recording of all, if there is none; tell whether there is."""
        if self._joined is None:
            try:
                self._joined = compared.together(made)
            except Exception as error:
                self._failed = True
                why = str(error).partition("\n")[0] or type(error).__name__
                warn(f"the fits could not be made one CUDA graph: {why}; each goes on with its own, and takes longer")
        return self._joined is not None

    def _replay(self, made: list[tuple[Fit, Replay]], count: int) -> None:
        assert self._joined is not None
        for _ in range(count):
            self._joined.replay()
        for _, one in made:
            one.counts(count)
        self.together += count

    @contextlib.contextmanager
    def _all_at_one_place(self, own: _Member) -> Iterator[list[tuple[Fit, Replay]]]:
        """Let this thread's place on the device come after those of all, and those go on after it."""
        made = [(one.fit, one.made) for one in self._members.values() if one.fit is not None and one.made is not None]
        places = [one.place for one in self._others(own)]
        assert own.made is not None
        device: Recorder = own.made.device
        device.wait_for(places)
        try:
            yield made
        finally:
            device.wait_in(places)
