"""Ray entrypoints, one per stage: `python -m flywheel_core.jobs.<stage> --store … --plan …`."""
