#!/usr/bin/env python3
"""pool.py OUT [--pictures N] SET...: the training sides of clip archives in kinect1_20, as one archive to start encoders from.

A SET is PATH:SPLIT[:RULE…], of which the clips are taken that SPLIT trains on and that all rules let pass: a flag (`used_cvpr12=1`), no clip
of some subjects or cameras (`subjects!=1,3`). The split of the archive that is written is `pool`, and nothing of it is test.

With --pictures, N orthographic pictures of each clip instead: cameras all around, up to .25 rad above or below, in J-HMDB's joints and
coordinates (y down). The draws are seeded: the same call writes the same bytes.
"""
import array, json, math, random, struct, sys

# J-HMDB's joints that the Kinect names otherwise: belly and neck are the ends by which both sets' torsos are scaled.
NAMES = {"neck": "shoulder_center", "belly": "hip_center", "face": "head"}
JHMDB = {
    "name": "jhmdb14_ddnet",  # the layout's name goes by it
    "joints": "neck belly face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow right_knee left_knee right_wrist "
              "left_wrist right_ankle left_ankle".split(),
    "parents": [-1, 0, 0, 0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 9, 10],
}
TILT = 0.25  # rad


def read(path):
    """Tensors by name, and the description of the clips."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        body = file.read()
    about = json.loads(header.pop("__metadata__")["clips"])
    tensors = {}
    for name, info in header.items():
        tensors[name] = array.array({"F32": "f", "I64": "q", "U8": "B"}[info["dtype"]])
        tensors[name].frombytes(body[slice(*info["data_offsets"])])
    return tensors, about


def write(path, tensors, about):
    header, at = {"__metadata__": {"clips": json.dumps(about)}}, 0
    for name, kind, shape, data in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in tensors))


def chosen(tensors, split, rules):
    """Indices of the clips of a SET."""
    kept = [i for i, test in enumerate(tensors[f"split.{split}.test"]) if not test]
    for rule in rules:
        key, values = rule.replace("!", "").split("=")
        values = {int(value) for value in values.split(",")}
        kept = [i for i in kept if (tensors[key][i] in values) != ("!" in rule)]
    return kept


def picture(clip, joints, view):
    """[frames, J-HMDB's joints, 2] of [frames, 20, 3] as a camera sees it, `view` = (turn, tilt)."""
    (ct, st), (cp, sp) = ((math.cos(a), math.sin(a)) for a in view)
    out = array.array("f")
    for frame in range(0, len(clip), 60):
        for joint in joints:
            x, y, z = clip[frame + joint * 3:frame + joint * 3 + 3]
            out.append(-(ct * x - st * z))
            out.append(-(cp * y - sp * (st * x + ct * z)))
    return out


def main(out, *sets):
    views = 0
    if sets[0] == "--pictures":
        views, sets = int(sets[1]), sets[2:]
    random.seed(1)
    classes, labels, subjects, offsets = [], [], [], [0]
    points, valid = array.array("f"), bytearray()
    for place, one in enumerate(sets):
        path, split, *rules = one.split(":")
        tensors, about = read(path)
        joints = [about["joints"].index(NAMES.get(name, name)) for name in JHMDB["joints"]]
        for clip in chosen(tensors, split, rules):
            label = about["classes"][tensors["labels"][clip]]
            if label not in classes:
                classes.append(label)
            start, end = tensors["offsets"][clip:clip + 2]
            body = tensors["joints"][start * 60:end * 60]
            for _ in range(views or 1):
                turned = (random.uniform(-math.pi, math.pi), random.uniform(-TILT, TILT)) if views else None
                points.extend(picture(body, joints, turned) if turned else body)
                sure = tensors["confidence"][start * 20:end * 20] if "confidence" in tensors else [1.0] * (20 * (end - start))
                valid.extend(confidence > 0 for confidence in sure)
                offsets.append(offsets[-1] + end - start)
                labels.append(classes.index(label))
                subjects.append(1000 * place + tensors["subjects"][clip])
    frames, clips = offsets[-1], len(labels)
    shape = [frames, 1, 15, 2] if views else [frames, 1, 20, 3]
    longs = [(name, "I64", [len(x)], array.array("q", x).tobytes()) for name, x in
             (("offsets", offsets), ("labels", labels), ("subjects", subjects))]
    # A picture shows every joint: the trackers' doubts are about places, and those are what there is.
    flags = [] if views else [("valid", "U8", [frames, 1, 20], bytes(valid))]
    tensors = [*longs, ("joints", "F32", shape, points.tobytes()), *flags, ("split.pool.test", "U8", [clips], bytes(clips))]
    layout = JHMDB if views else {"name": "pool", "joints": about["joints"], "parents": about["parents"]}
    write(out, tensors, {**layout, "classes": classes, "fps": None})
    print(f"{out}: {clips} clips of {len(classes)} classes")


if __name__ == "__main__":
    main(*sys.argv[1:])
