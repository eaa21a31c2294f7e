"""The move queue driven on a virtual clock, which would not wait for its threads."""

import trio

from pghotd.memory.linux.migrate.move_queue import MoveQueue


def drive(queue: MoveQueue) -> None:
    """Replace the two threads of a queue by tasks, which are stirred by what is submitted and checked."""
    promote, ask = queue.promote, queue.ask
    submitted, checked = [trio.Event()], [trio.Event()]

    async def stirring(*arguments, **keywords):
        submitted[0].set()
        return await promote(*arguments, **keywords)

    async def ask_on():
        while True:
            await submitted[0].wait()
            await trio.lowlevel.checkpoint()  # what is submitted at the same time comes first
            submitted[0] = trio.Event()
            while ask():
                queue.deliver()
                checked[0].set()

    async def move_on():
        while True:
            await checked[0].wait()
            await trio.lowlevel.checkpoint()
            checked[0] = trio.Event()
            while queue._to_move:
                if wait_ms := queue.wait_ms():
                    await trio.sleep(wait_ms / 1000)
                else:
                    queue.make_call()
                    queue.deliver()

    async def run():
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_on)
                nursery.start_soon(move_on)
        finally:
            queue._give_up()

    queue.promote, queue.run = stirring, run
