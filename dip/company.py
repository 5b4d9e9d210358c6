"""Recorded fits in threads that go on together: they meet, and one thread has an iteration of all replayed at once.

What is won is that a GPU begins fewer kernels (`dip.merged`), and that Python has one thing to do where it had many.
What it costs is that they wait for each other. So they meet only where all of them can, for several iterations in a
row, and nobody waits long.
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

_PATIENCE = 1.0  # seconds that a fit waits for the others
_LEAST = 8  # iterations that are worth to meet for
_BEFORE = 2  # meetings before a graph is made for those who meet: they are to be those who go on together
_SHORT = 4  # meetings for fewer than that before they meet no more: they look at something at different times


class _Member:
    """A fit, and for how many iterations it is there."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
        self.made: Replay | None = None
        self.place: Any = None
        self.count = 0
        self.done: int | None = 0  # None while it waits
        self.is_late = False  # it was waited for in vain

    @property
    def comes(self) -> bool:
        """Whether it is to be waited for."""
        return self.made is not None and not self.is_late


class Company:
    """Fits that run at a time, each in a thread, and go on together where they can."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._members: dict[object, _Member] = {}
        self._together: Joined | None = None
        self._apart = False  # those who are there do not go on together
        self._met = self._short = 0

    @contextlib.contextmanager
    def joined(self, fit: Fit) -> Iterator[None]:
        """Let a fit be one of them for the time of its run."""
        replays = fit._replays
        with self._turn:
            self._members[replays] = _Member()
            self._begin()
        replays.company = self
        try:
            yield
        finally:
            replays.company = None
            with self._turn:
                del self._members[replays]
                self._begin()

    def part(self, replays: object) -> None:
        """Let go of a fit's recording, which is given up."""
        with self._turn:
            if replays in self._members:
                self._members[replays] = _Member()
                self._begin()

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
            if own.made is not made:
                own.fit, own.made = fit, made
                self._begin()
            own.is_late = False
            if self._apart or len(self._members) < 2 or not all(one.comes for one in self._members.values()):
                return 0
            own.place, own.count, own.done = made.device.here(), count, None
            if all(one.done is None for one in self._members.values()):
                self._meet()
            elif not self._turn.wait_for(lambda: own.done is not None, _PATIENCE):
                for one in self._members.values():
                    one.is_late = one.done is not None
                self._release()
            assert own.done is not None
            return own.done

    def _begin(self) -> None:
        """Begin anew: they are others."""
        if self._together is not None:
            self._together.close()
        self._together, self._apart = None, False
        self._met = self._short = 0
        self._release()

    def _release(self, count: int = 0) -> None:
        """Let those go on who wait, after so many iterations."""
        for one in self._members.values():
            one.done = count if one.done is None else one.done
        self._turn.notify_all()

    def _meet(self) -> None:
        """Do what they are there for; all of them wait."""
        done = 0
        try:
            count = min(one.count for one in self._members.values())
            self._met, self._short = self._met + 1, self._short + (count < _LEAST)
            self._apart = self._short >= _SHORT
            if count >= _LEAST and self._met > _BEFORE and self._make():
                self._replay(count)
                done = count
        finally:
            self._release(done)

    def _make(self) -> bool:
        """Make one recording of all, if there is none; tell whether there is."""
        if self._together is None:
            try:
                with self._all_at_one_place() as made:
                    self._together = compared.together(made)
            except Exception as error:
                self._apart = True
                why = str(error).partition("\n")[0] or type(error).__name__
                warn(f"the fits could not be made one CUDA graph: {why}; each goes on with its own, and takes longer")
        return self._together is not None

    def _replay(self, count: int) -> None:
        assert self._together is not None
        with self._all_at_one_place() as made:
            for _ in range(count):
                self._together.replay()
            for _, one in made:
                one.counts(count)

    @contextlib.contextmanager
    def _all_at_one_place(self) -> Iterator[list[tuple[Fit, Replay]]]:
        """Let this thread's place on the device come after those of all, and those go on after it."""
        made = [(one.fit, one.made) for one in self._members.values() if one.fit is not None and one.made is not None]
        places = [one.place for one in self._members.values()]
        device: Recorder = made[0][1].device
        device.wait_for(places)
        try:
            yield made
        finally:
            device.wait_in(places)
