#!/usr/bin/env python3
"""shared_classes.py --as SET: the classes that a data set shares with UTD-MHAD, as options of `llmar-train evaluate`, one a line.

shared_classes.py DATA OUT: UTD-MHAD's training clips and, as subjects of 1000 and more, what MSR-Action3D (1000) and NW-UCLA (2000) recorded of its classes,
their training sides, as one archive: `vqvae` with those subjects held out tells how well a stage 1 reads other people's recordings. Of NW-UCLA every third clip
is taken, so that both sets weigh alike."""
import array, sys

from pool import chosen, read, write

UTD = "utd_mhad", "cross_subject", [], 1
# MSR-Action3D's circle has no direction, and which of its punches and other waves UTD-MHAD would call otherwise is not clear.
OTHERS = [
    ("msr_action3d", "cross_subject", ["used_cvpr12=1"], 1, {
        "high arm wave": "wave", "hand catch": "catch", "high throw": "throw", "draw X": "draw X", "hand clap": "clap", "side boxing": "boxing", "jogging": "jog",
        "tennis swing": "tennis swing", "tennis serve": "tennis serve", "pickup and throw": "pickup and throw"}),
    ("nw_ucla", "cross_view", [], 3, {"walk around": "walk", "sit down": "stand to sit", "stand up": "sit to stand", "throw": "throw"}),
]


def main(data, out):
    labels, subjects, offsets = [], [], [0]
    points, valid = array.array("f"), bytearray()
    _, utd = read(f"{data}/utd_mhad.safetensors")
    for place, (name, split, rules, every, *called) in enumerate([UTD, *OTHERS]):
        tensors, about = read(f"{data}/{name}.safetensors")
        label = lambda clip: about["classes"][tensors["labels"][clip]]
        called = called[0] if called else {text: text for text in about["classes"]}
        for clip in [clip for clip in chosen(tensors, split, rules) if label(clip) in called][::every]:
            start, end = tensors["offsets"][clip:clip + 2]
            points.extend(tensors["joints"][start * 60:end * 60])
            sure = tensors["confidence"][start * 20:end * 20] if "confidence" in tensors else [1.0] * (20 * (end - start))
            valid.extend(confidence > 0 for confidence in sure)
            offsets.append(offsets[-1] + end - start)
            labels.append(utd["classes"].index(called[label(clip)]))
            subjects.append(1000 * place + tensors["subjects"][clip])
    frames, clips = offsets[-1], len(labels)
    longs = [(key, "I64", [len(x)], array.array("q", x).tobytes()) for key, x in (("offsets", offsets), ("labels", labels), ("subjects", subjects))]
    body = [("joints", "F32", [frames, 1, 20, 3], points.tobytes()), ("valid", "U8", [frames, 1, 20], bytes(valid))]
    write(out, [*longs, *body, ("split.elsewhere.test", "U8", [clips], bytes(clips))],
          {"name": "elsewhere", "joints": utd["joints"], "parents": utd["parents"], "classes": utd["classes"], "fps": None})
    others = sorted({subject for subject in subjects if subject >= 1000})
    print(f"data.validation_subjects={others}".replace(" ", ""))


if sys.argv[1] == "--as":
    called = next(called for name, *_, called in OTHERS if name == sys.argv[2])
    print("\n".join(f"--as={theirs}={ours}" for theirs, ours in called.items()))
else:
    main(*sys.argv[1:])
