# SPDX-License-Identifier: MIT OR Apache-2.0
"""The Python package, on the tiny model of the tests: LLMAR_TINY names its file, LLMAR_TINY_OTHER that of another one.

Run with unittest from a folder in which the package is not, so that it is the installed one that is tested.
"""

import gc
import os
import sys
import threading
import time
import unittest

import numpy as np

import llmar

TINY = os.environ["LLMAR_TINY"]
FRAMES, JOINTS = 40, 20


def motion(seed=1, frames=FRAMES):
    t = np.arange(frames, dtype=np.float32)[:, None]
    j = np.arange(JOINTS, dtype=np.float32)[None, :]
    phase = 0.1 * t * (1 + seed) + 0.7 * j
    x = 0.05 * (j % 5) + 0.2 * np.sin(phase + seed)
    y = 1.8 - 0.09 * j + 0.1 * np.cos(1.3 * phase)
    z = 2.5 + 0.15 * np.sin(0.6 * phase)
    return np.stack([x, y, z], axis=-1).astype(np.float32)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = llmar.Model(TINY)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def refused(self, kind, call, *arguments, **named):
        with self.assertRaises(kind) as caught:
            call(*arguments, **named)
        self.assertIsInstance(caught.exception, llmar.Error)
        self.assertTrue(str(caught.exception))
        self.assertEqual(caught.exception.status, kind.STATUS)


class Models(Case):
    def test_info_and_labels(self):
        info = self.model.info
        self.assertEqual((info.name, info.layout, info.joints, info.coords, info.device), ("tiny", "kinect1_20", 20, 3, "cpu"))
        self.assertEqual(self.model.labels, ("walk", "sit down", "wave", "drink water"))
        self.assertRegex(llmar.library_version(), r"^\d+\.\d+\.\d+$")

    def test_bytes_and_verify(self):
        llmar.Model.verify(TINY)
        with open(TINY, "rb") as file:
            data = file.read()
        for buffer in (data, bytearray(data), memoryview(data)):
            with llmar.Model.from_bytes(buffer, verify=True) as model:
                self.assertEqual(model.info.name, "tiny")
        self.refused(llmar.FormatError, llmar.Model.from_bytes, data[:100])
        damaged = bytearray(data)
        damaged[-1] ^= 1
        self.refused(llmar.ChecksumError, llmar.Model.from_bytes, damaged, verify=True)

    def test_errors(self):
        self.refused(llmar.IoError, llmar.Model, "/nowhere")
        self.refused(llmar.InvalidArgumentError, llmar.Model, TINY, device="toaster")
        self.refused(llmar.InvalidArgumentError, llmar.Model, "nul\0")
        self.assertTrue(issubclass(llmar.ShapeError, ValueError) and issubclass(llmar.OutOfMemoryError, MemoryError))

    def test_closed(self):
        model = llmar.Model(TINY)
        stream, recognizer = llmar.Stream(model), llmar.Recognizer(model)
        model.close()
        model.close()
        self.refused(llmar.NullPointerError, llmar.Recognizer, model)
        stream.push(1, 0, motion()[0])  # they keep the model
        self.assertEqual(len(recognizer.recognize(motion()).top), 4)
        del model
        gc.collect()
        stream.poll()
        stream.close()
        self.refused(llmar.NullPointerError, stream.poll)
        recognizer.close()
        self.refused(llmar.NullPointerError, recognizer.recognize, motion())


class Clips(Case):
    def setUp(self):
        self.recognizer = llmar.Recognizer(self.model)

    def tearDown(self):
        self.recognizer.close()

    def test_answer(self):
        answer = self.recognizer.recognize(motion(), layout="kinect1_20", fps=30)
        self.assertEqual(sorted(score.text for score in answer.top), sorted(self.model.labels))
        self.assertAlmostEqual(sum(score.probability for score in answer.top), 1.0, places=3)
        self.assertEqual(answer.tokens.dtype, np.uint16)
        self.assertEqual(len(answer.tokens), self.model.info.token_count)
        self.assertTrue((answer.tokens == self.recognizer.tokenize(motion(), fps=30)).all())
        self.assertEqual(answer.missing, 0.0)

    def test_arrays_of_every_kind_are_the_same_clip(self):
        def key(answer):
            return [score[1:] for score in answer.top], answer.tokens.tolist()

        values = motion()
        want = key(self.recognizer.recognize(values))
        doubled = np.repeat(values, 2, axis=0)[::2]
        self.assertFalse(doubled.flags.c_contiguous)
        for same in (values[:, None], values.astype(np.float64), values.tolist(), np.asfortranarray(values), doubled):
            self.assertEqual(key(self.recognizer.recognize(same)), want)
        flags = np.ones((FRAMES, JOINTS), dtype=bool)
        for valid in (flags, flags.astype(np.uint8), flags.astype(int), flags[:, None]):
            self.assertEqual(key(self.recognizer.recognize(values, valid=valid)), want)
        batch = self.recognizer.recognize_batch([llmar.Clip(values), llmar.Clip(motion(2)), llmar.Clip(values)])
        self.assertEqual(key(batch[0]), want)
        self.assertEqual(key(batch[2]), want)
        self.assertEqual(self.recognizer.recognize_batch([]), [])
        times = np.arange(FRAMES) * 33_000_000
        self.assertEqual(len(self.recognizer.recognize(values, timestamps=times).top), 4)

    def test_no_copy_of_floats_in_order(self):
        values = motion()
        pose, keep = llmar.Stream(self.model)._pose(llmar.Pose(1, 0, values[3]))
        self.assertEqual(pose.joints, values[3].ctypes.data)
        clip, keep = self.recognizer._clip(llmar.Clip(values, valid=np.ones((FRAMES, JOINTS), bool)))
        self.assertEqual(clip.joints, values.ctypes.data)
        del keep

    def test_missing_joints(self):
        values = motion()
        values[:, 3] = np.nan
        self.assertAlmostEqual(self.recognizer.recognize(values).missing, 1 / JOINTS, places=5)
        self.refused(llmar.EmptyClipError, self.recognizer.recognize, np.full_like(values, np.nan))

    def test_errors(self):
        recognize, values = self.recognizer.recognize, motion()
        self.refused(llmar.ShapeError, recognize, values[0, 0])
        self.refused(llmar.ShapeError, recognize, values[:, :5])
        self.refused(llmar.ShapeError, recognize, values, valid=np.ones(3))
        self.refused(llmar.ShapeError, recognize, values, timestamps=np.arange(3))
        self.refused(llmar.InvalidArgumentError, recognize, values, timestamps=np.arange(FRAMES) * 0.1)
        self.refused(llmar.InvalidArgumentError, recognize, values, timestamps=np.arange(FRAMES) - 1)
        self.refused(llmar.InvalidArgumentError, recognize, values, timestamps=np.zeros(FRAMES, int))
        self.refused(llmar.InvalidArgumentError, recognize, values, fps=30, timestamps=np.arange(FRAMES))
        self.refused(llmar.UnknownLayoutError, recognize, values, layout="nobody")
        self.refused(llmar.DeadlineExceededError, recognize, values, deadline=1e-9)
        self.refused(llmar.InvalidArgumentError, recognize, values, deadline=0)
        self.refused(llmar.LimitError, llmar.Recognizer, self.model, threads=1000)
        self.assertEqual(len(recognize(values).top), 4)

    def test_cancel(self):
        cancel = llmar.CancelToken()
        thread = threading.Thread(target=cancel.request)
        thread.start()
        thread.join()
        self.refused(llmar.CancelledError, self.recognizer.recognize, motion(), cancel=cancel)
        cancel.clear()
        self.recognizer.recognize(motion(), cancel=cancel)

    def test_labels(self):
        self.recognizer.set_labels(["jump", "wave"])
        self.assertEqual({score.text for score in self.recognizer.recognize(motion()).top}, {"jump", "wave"})
        self.refused(llmar.InvalidArgumentError, self.recognizer.set_labels, [])
        self.refused(llmar.InvalidArgumentError, self.recognizer.set_labels, "jump")
        self.refused(llmar.InvalidArgumentError, self.recognizer.set_labels, ["a", "a"])
        self.assertEqual(self.recognizer.labels, ("jump", "wave"))
        before = self.recognizer.recognize(motion()).top
        self.recognizer.balance([llmar.Clip(motion())])
        for score in self.recognizer.recognize(motion()).top:  # the measure itself: nothing is left
            self.assertAlmostEqual(score.probability, 0.5, places=5)
        self.recognizer.balance(None)
        self.assertEqual(self.recognizer.recognize(motion()).top, before)
        self.refused(llmar.InvalidArgumentError, self.recognizer.balance, [])
        self.recognizer.balance([llmar.Clip(motion())])
        self.recognizer.set_labels(None)
        self.assertEqual(self.recognizer.labels, self.model.labels)
        with llmar.Recognizer(self.model, labels=["hop", "skip"], top_k=1, greedy=True, threads=2) as other:
            self.assertIn(other.recognize(motion()).top[0].text, ("hop", "skip"))
        self.refused(llmar.UnsupportedError, llmar.Recognizer, self.model, by_words=True)

    def test_second_thread(self):
        """While a call runs, another is refused; what it holds is not freed under it."""
        ended, clips = [], [llmar.Clip(motion())] * 64

        def work():
            try:
                while True:
                    try:
                        self.recognizer.recognize_batch(clips)
                    except llmar.InUseError:
                        pass
            except llmar.NullPointerError as error:
                ended.append(error.status)

        thread = threading.Thread(target=work)
        thread.start()
        until, refused = time.monotonic() + 60, 0
        while refused < 3 and time.monotonic() < until:
            try:
                self.recognizer.set_labels(None)
            except llmar.InUseError:
                refused += 1
            time.sleep(0.001)
        self.recognizer.close()  # waits
        thread.join()
        self.assertEqual((refused, ended), (3, [llmar.NullPointerError.STATUS]))


class Streams(Case):
    PERIOD = 100_000_000

    def poses(self, values, body=7, start=0):
        return [llmar.Pose(body, start + t * self.PERIOD, joints) for t, joints in enumerate(values)]

    def test_events(self):
        with llmar.Stream(self.model, layout="kinect1_20", begin_at=0.01, end_below=0.005) as stream:
            events = list(stream.follow(self.poses(motion())))
            kinds = [event.kind for event in events]
            decision = events[kinds.index(llmar.EventKind.DECISION)]
            self.assertEqual((decision.body, len(decision.top), decision.top[0].text), (7, 3, decision.text))
            self.assertIn(decision.text, self.model.labels)
            self.assertTrue(decision.start_ns < decision.time_ns and decision.latency_ns > 0 and decision.missing_joints == ())
            self.assertTrue(kinds.count(llmar.EventKind.BEGIN) == kinds.count(llmar.EventKind.END) > 0)
            stats = stream.stats()
            self.assertEqual((stats.frames, stats.decisions), (FRAMES, kinds.count(llmar.EventKind.DECISION)))
            self.assertTrue(stats.latency.max_ns >= stats.latency.p50_ns > 0)
            stream.advance(FRAMES * self.PERIOD + 4_000_000_000)
            (gone,) = stream.poll()
            self.assertEqual((gone.kind, gone.body, gone.text, gone.label), (llmar.EventKind.FORGOTTEN, 7, None, None))
            stream.reset_stats()
            self.assertEqual(stream.stats().frames, 0)

    def test_limit_and_order(self):
        with llmar.Stream(self.model) as one, llmar.Stream(self.model, threads=2) as other:
            values = motion(frames=200)
            want = list(one.follow(self.poses(values)))
            self.assertGreater(len(want), 16)
            self.assertEqual(other.push_all(self.poses(values)), [0] * 200)
            other.flush()
            got = []
            while events := other.poll(limit=3):
                got += events
            self.assertEqual([event[:-1] for event in got], [event[:-1] for event in want])

    def test_worker(self):
        with llmar.Stream(self.model, worker=True, actions_only=True, begin_at=0.01, end_below=0.005) as stream:
            for pose in self.poses(motion()):
                stream.push(*pose[:3])
            stream.flush()
            stream.wait(deadline=60)
            self.assertTrue({event.kind for event in stream.poll()} <= {llmar.EventKind.BEGIN, llmar.EventKind.END})

    def test_refused_frames(self):
        frame = motion()[0]
        with llmar.Stream(self.model, max_bodies=1, queued_frames=3) as stream:
            stream.push(1, 1000, frame, valid=np.ones(JOINTS, bool), confidence=np.ones(JOINTS))
            self.refused(llmar.DuplicateTimeError, stream.push, 1, 1000, frame)
            self.refused(llmar.BackwardTimeError, stream.push, 1, 999, frame)
            self.refused(llmar.FutureTimeError, stream.push, 1, 10**15, frame)
            self.refused(llmar.BodyLimitError, stream.push, 2, 1001, frame)
            self.refused(llmar.ShapeError, stream.push, 1, 1001, frame[:5])
            self.refused(llmar.ShapeError, stream.push, 1, 1001, frame, valid=np.ones(3))
            self.refused(llmar.ShapeError, stream.push, 1, 1001, frame, confidence=np.ones(3))
            self.refused(llmar.InvalidArgumentError, stream.push, -1, 1001, frame)
            self.refused(llmar.InvalidArgumentError, stream.push, 1, 1 << 64, frame)
            poses = [llmar.Pose(1, 1001, frame), llmar.Pose(1, 1001, frame), llmar.Pose(1, 1002, frame), llmar.Pose(1, 1003, frame)]
            duplicate, full = llmar.DuplicateTimeError.STATUS, llmar.QueueFullError.STATUS
            self.assertEqual(stream.push_all(poses), [0, duplicate, 0, full])
            self.assertEqual(stream.push_all([]), [])
            self.refused(llmar.QueueFullError, stream.save)
            self.refused(llmar.UnknownBodyError, stream.remove_body, 5)
            self.refused(llmar.InvalidArgumentError, stream.advance, 1)
            stream.poll()
            stream.remove_body(1)
            self.assertEqual([event.kind for event in stream.poll()], [llmar.EventKind.FORGOTTEN])
            stream.reset()
            stream.push(9, 0, frame)

    def test_cancel_loses_nothing(self):
        cancel = llmar.CancelToken()
        with llmar.Stream(self.model) as stream, llmar.Stream(self.model) as other:
            stream.push_all(self.poses(motion()))
            other.push_all(self.poses(motion()))
            cancel.request()
            self.refused(llmar.CancelledError, stream.poll, cancel=cancel)
            self.refused(llmar.DeadlineExceededError, stream.poll, deadline=1e-9)
            self.assertEqual([event[:-1] for event in stream.poll()], [event[:-1] for event in other.poll()])

    def test_labels(self):
        with llmar.Stream(self.model) as stream:
            stream.filter_labels([False, False, True, False])
            self.assertEqual(stream.label_state(0), llmar.LabelState.DENIED)
            texts = {event.text for event in stream.follow(self.poses(motion()))}
            self.assertEqual(texts, {"wave"})
            self.refused(llmar.ShapeError, stream.filter_labels, [1])
            self.refused(llmar.InvalidArgumentError, stream.filter_labels, [0, 0, 0, 0])
            stream.filter_labels(None)
            self.assertEqual(stream.label_state(0), llmar.LabelState.ALLOWED)
            self.refused(llmar.InvalidArgumentError, stream.label_state, 4)
            stream.set_labels(["hop", "skip"])
            self.assertEqual(stream.labels, ("hop", "skip"))
            stream.set_labels(None)

    def test_settings(self):
        up = {"up": llmar.Axis.PLUS_Z, "handedness": llmar.Handedness.LEFT, "metres_per_unit": 0.01}
        with llmar.Stream(self.model, unknown_below=0, smoothing=0, **up) as stream:
            stream.push(1, 0, motion()[0] * 100)
        self.refused(llmar.InvalidEnumError, llmar.Stream, self.model, up=77)
        self.refused(llmar.InvalidArgumentError, llmar.Stream, self.model, smoothing=-1)
        self.refused(llmar.InvalidArgumentError, llmar.Stream, self.model, window=0)
        self.refused(llmar.LimitError, llmar.Stream, self.model, max_bodies=1000)
        self.refused(llmar.UnknownLayoutError, llmar.Stream, self.model, layout="nobody")

    def test_state(self):
        values = motion()
        with llmar.Stream(self.model) as whole, llmar.Stream(self.model) as first, llmar.Stream(self.model) as second:
            want = list(whole.follow(self.poses(values)))
            got = []
            for pose in self.poses(values)[:25]:
                first.push(*pose[:3])
                got += first.poll()
            state = first.save()
            self.assertIsInstance(state, bytes)
            second.load(memoryview(state))
            got += list(second.follow(self.poses(values)[25:]))
            self.assertEqual([event[:-1] for event in got], [event[:-1] for event in want])
            self.refused(llmar.FormatError, second.load, state[:-1])
            self.refused(llmar.FormatError, second.load, b"")
            with llmar.Model(os.environ["LLMAR_TINY_OTHER"]) as model, llmar.Stream(model) as foreign:
                self.refused(llmar.ForeignStateError, foreign.load, state)

    def test_threads_at_once(self):
        """A stream a thread, one model: the interpreter's lock does not serialise them, and the answers are the same."""
        answers = {}

        def work(number):
            with llmar.Stream(self.model) as stream:
                answers[number] = [event[:-1] for event in stream.follow(self.poses(motion()))]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 4)
        self.assertTrue(all(answer == answers[0] for answer in answers.values()))


class LayoutsAndMessages(Case):
    def test_layouts(self):
        self.assertIn("ntu25", llmar.layouts())
        self.assertEqual(len(llmar.joint_names("ntu25")), 25)
        self.refused(llmar.UnknownLayoutError, llmar.joint_names, "nobody")
        names = [name.upper() for name in llmar.joint_names("kinect1_20")]
        llmar.register_layout("python_20", names)
        self.assertIn("python_20", llmar.layouts())
        with llmar.Recognizer(self.model) as recognizer:
            self.assertEqual(len(recognizer.recognize(motion(), layout="python_20").top), 4)
        self.refused(llmar.InvalidArgumentError, llmar.register_layout, "python_20", names[:-1] + ["nose"])

    def test_log(self):
        messages = []

        def receive(level, text):
            messages.append((level, text))
            raise ValueError("dropped")

        llmar.set_log(receive, llmar.LogLevel.DEBUG)
        del receive
        gc.collect()
        llmar.Model(TINY).close()
        self.refused(llmar.IoError, llmar.Model, "/nowhere")
        llmar.set_log(None)
        got = len(messages)
        self.assertTrue(any(level == llmar.LogLevel.DEBUG and "/nowhere" in text for level, text in messages))
        llmar.Model(TINY).close()
        self.assertEqual(len(messages), got)

    def test_every_public_name_is_there(self):
        for name in llmar.__all__:
            self.assertTrue(hasattr(llmar, name), name)


if __name__ == "__main__":
    if os.environ.get("LLMAR_EXPECT_INSTALLED"):
        assert "site-packages" in llmar.__file__, llmar.__file__
    unittest.main(argv=sys.argv)
