#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tells what the people of a clip do while it plays:

  stream.py MODEL.llmar CLIP.txt [--real-time]

Every person is a body of a stream, and every event is a line. --real-time plays the clip at its speed, otherwise it goes as fast as it can. The same
program is there in C, C++ and Rust. CLIP.txt: see examples/c/clip_text.h.
"""

import sys
import time

import numpy as np

import llmar


def read_clip(path):
    with open(path, encoding="utf-8") as file:
        layout, *counts, fps = file.readline().split()
        values = np.array(file.read().split(), dtype=np.float32)
    return layout, values.reshape([int(count) for count in counts]), float(np.float32(fps))


def show(event):
    line = f"{event.time_ns / 1e9:7.3f} body {event.body} "
    if event.kind == llmar.EventKind.DECISION:
        line += f"decision {event.text} {event.probability:.2f}"
        line += "".join(f", {other.text} {other.probability:.2f}" for other in event.top[1:])
        line += " (unknown)" if event.unknown else ""
    elif event.kind == llmar.EventKind.BEGIN:
        line += f"begin {event.text} {event.probability:.2f} from {event.start_ns / 1e9:.3f}"
    elif event.kind == llmar.EventKind.END:
        line += f"end {event.text} {event.probability:.2f} from {event.start_ns / 1e9:.3f} to {event.end_ns / 1e9:.3f}"
    else:
        line += "forgotten"
    print(line, flush=True)


def run(model_path, clip_path, real_time):
    layout, frames, fps = read_clip(clip_path)
    with llmar.Model(model_path) as model, llmar.Stream(model, layout=layout, max_bodies=frames.shape[1]) as stream:
        begin = time.monotonic()
        for t, persons in enumerate(frames):
            time_ns = int(t * 1e9 / (fps if fps > 0 else 30.0))
            if real_time:
                time.sleep(max(0.0, begin + time_ns / 1e9 - time.monotonic()))
            for body, joints in enumerate(persons):
                if np.isfinite(joints).any():  # a person of whom nothing is seen is not there
                    stream.push(body, time_ns, joints)
            for event in stream.poll():
                show(event)
        stream.flush()
        for event in stream.poll():
            show(event)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) not in (2, 3) or arguments[2:] not in ([], ["--real-time"]):
        sys.exit("usage: stream.py MODEL.llmar CLIP.txt [--real-time]")
    try:
        run(arguments[0], arguments[1], len(arguments) == 3)
    except (llmar.Error, OSError, ValueError) as error:
        sys.exit(f"stream: {error}")
