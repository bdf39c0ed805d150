"""The command that lists targets."""

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson
from controller.cli.text import print_json, print_lines, print_table, stdout_console


@reports_errors
def targets(as_json: AsJson = False) -> None:
    """List the targets, the formats with kernels there, and which can be timed on this machine."""
    from controller.tables.machine import lacking_here
    from workers.targets.base import TARGETS

    listed = [(target, target.available(), lacking_here(target)) for target in map(TARGETS.get, TARGETS)]
    if as_json:
        rows = [
            {
                "name": target.name,
                "description": target.description,
                "formats": list(target.formats),
                "no_kernels_here": dict(lacking),
                "channel_multiple": target.channel_multiple,
                "export": target.form.value,
                "available": reason is None,
                "reason": reason,
            }
            for target, reason, lacking in listed
        ]
        print_json({"targets": rows})
        return
    console = stdout_console()
    cells = [
        (
            target.name,
            ", ".join(target.formats),
            str(target.channel_multiple),
            target.form.value,
            "yes" if reason is None else "no",
        )
        for target, reason, _ in listed
    ]
    print_table(console, "targets", ("target", "formats", "multiple of", "export", "available"), cells)
    for target, reason, lacking in listed:
        print_lines(console, f"{target.name}: {target.description}" + ("" if reason is None else f"; {reason}"))
        for name, why in lacking.items():
            print_lines(console, f"{target.name}: {name} has no kernel here: {why}")
