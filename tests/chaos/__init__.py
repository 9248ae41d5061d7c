"""Kills every part of a real stack at random moments, and proves that nothing was lost or doubled.

README.md        what is killed, what is proven, what was found
chaos_stack.py   the stack with short heartbeats, the flow's plans
targets.py       the seven kinds of process, found by the stack's own marks
killer.py        when, whom, and the supervisor that starts the dead anew
watcher.py       looks at processes and manifests five times a second
proofs.py        events, sightings and store in, violations out
session.py       the whole: undisturbed runs, kills, the end
stages/          the two jobs; dags/ the flow
"""
