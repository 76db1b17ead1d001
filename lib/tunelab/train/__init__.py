"""Training: the `loop`, a generator of events; the `checkpoints` it goes on from; the `memory` it will take. Uses the
losses, fast or plain. It knows no run and no measuring: the chain hands those in.
"""
