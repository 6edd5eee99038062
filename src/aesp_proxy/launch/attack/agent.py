"""Attack from inside: the program that ``doctor --attack`` has ``run`` start as its agent.

A script of its own, ``python -I -S agent.py PLAN``, with the standard library only. It
tries each attack of the plan for real and says on standard output, a JSON object a line,
how far it got. That is not what is believed: what got out is what the canaries saw.
"""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    # Isolated as it starts, it finds Python's own modules and, after them, ours.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))  # noqa: PTH120

from aesp_proxy.launch.attack import captured, direct, kernel_calls, proxied, secrets_out
from aesp_proxy.launch.attack.plan import CannotTryError, Plan, ProvenError
from aesp_proxy.launch.attack.wire import RefusedError, await_proxy

ATTEMPTS = {
    **direct.ATTEMPTS,
    **kernel_calls.ATTEMPTS,
    **proxied.ATTEMPTS,
    **secrets_out.ATTEMPTS,
    **captured.ATTEMPTS,
}


def attempt(plan: Plan, name: str) -> dict[str, str]:
    """Try one attack; return what there is to say of it."""
    try:
        said = ATTEMPTS[name](plan, plan.tokens[name])
    except CannotTryError as why:
        return {"id": name, "state": "cannot", "said": str(why)}
    except ProvenError as proof:
        return {"id": name, "state": "proof", "said": str(proof)}
    except (OSError, RefusedError) as error:
        return {"id": name, "state": "tried", "said": str(error)}
    except ValueError as error:
        # A fault of the attacker must not read as a merit of the walls.
        return {"id": name, "state": "cannot", "said": f"the attacker failed: {error}"}
    return {"id": name, "state": "tried", "said": said}


def main() -> int:
    """Try all that the plan of a file asks for."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        plan = Plan(**json.load(file))
    await_proxy(plan)
    tell(plan)
    return 0


def tell(plan: Plan) -> None:
    """Try all that the plan asks for, and say of each what became of it."""
    for name in plan.tokens:
        sys.stdout.write(json.dumps(attempt(plan, name)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
