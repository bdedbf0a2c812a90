"""What many threads ask at once, answered for several of them together."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """For threads what `Turns` is for coroutines: a few answer at once, and what others ask meanwhile waits for them.

    The threads that ask do the work: each for itself, and for some of those that wait. So nobody waits where a thread
    is free, and one that is alone is answered as if it had called `answer`. Work that fails for several is done again
    for each of them alone, so that what one asked fails for that one only.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answer]], threads: int, most: int) -> None:
        """answer: gives the answer to each of what was asked, in their order.

        threads: so many are in `answer` at once. most: so much is asked of it together.
        """
        self._answer = answer
        self._free = threads
        self._most = most
        self._waiting: deque[_Question[Asked, Answer]] = deque()
        self._changing = threading.Lock()

    def ask(self, asked: Asked, kind: Hashable | None) -> Answer:
        """The answer. Raises what `answer` raises.

        kind: what is of one kind may be answered together; None where it is to be answered alone.
        """
        mine = _Question[Asked, Answer](asked, kind)
        with self._changing:
            waits = not self._free
            if waits:
                self._waiting.append(mine)
            else:
                self._free -= 1
        if waits:
            mine.sleep.acquire()
        if not mine.settled:
            self._work(mine)
        if mine.error is not None:
            raise mine.error
        return mine.answers[0]

    def _work(self, mine: "_Question[Asked, Answer]") -> None:
        """Answer one, and some that wait; then let the next one work."""
        with self._changing:
            others = [one for one in self._waiting if mine.goes_with(one)][: self._most - 1]
            for one in others:
                self._waiting.remove(one)
        self._settle([mine, *others])
        with self._changing:
            after = [self._waiting.popleft()] if self._waiting else []
            if not after:
                self._free += 1
        for one in (*others, *after):
            one.sleep.release()

    def _settle(self, questions: "Sequence[_Question[Asked, Answer]]") -> None:
        try:
            answers = self._answer([one.asked for one in questions])
            for one, answer in zip(questions, answers, strict=True):
                one.answers.append(answer)
        except BaseException as error:
            if len(questions) > 1 and isinstance(error, Exception):
                for one in questions:
                    self._settle([one])
                return
            for one in questions:
                one.error = error


class _Question(Generic[Asked, Answer]):
    """What one thread asks, while it may sleep."""

    def __init__(self, asked: Asked, kind: Hashable | None) -> None:
        self.asked = asked
        self.kind = kind
        self.answers: list[Answer] = []
        self.error: BaseException | None = None
        self.sleep = threading.Lock()  # until it is answered, or it is its turn to work
        self.sleep.acquire()

    @property
    def settled(self) -> bool:
        return bool(self.answers) or self.error is not None

    def goes_with(self, other: "_Question[Asked, Answer]") -> bool:
        return self.kind is not None and self.kind == other.kind
