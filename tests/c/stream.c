/*
 * Every function of streams: what is refused, that a stream goes on afterwards, and what comes out. Arguments: MODEL OTHER, two models that
 * differ in their storage. SPDX-License-Identifier: MIT OR Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "support.h"

/* Ten frames a second: a decision every few frames, FRAMES of them are four seconds. */
static const uint64_t PERIOD = 100000000, SECOND = 1000000000;
enum { MAX_EVENTS = 128, FRAME = JOINTS * COORDS };

static llmar_model *model, *other_model;
static float values[VALUES];
static llmar_event events[MAX_EVENTS];

static llmar_stream *make_stream(const llmar_stream_params *params)
{
    llmar_stream *stream = NULL;
    EXPECT(LLMAR_OK, llmar_stream_create(model, params, &stream));
    CHECK(stream != NULL);
    return stream;
}

static llmar_pose pose_at(uint64_t body, int frame, uint64_t time_ns)
{
    llmar_pose pose = {.struct_size = sizeof pose};
    pose.joint_count = JOINTS;
    pose.body = body;
    pose.time_ns = time_ns;
    pose.joints = values + (frame % FRAMES) * FRAME;
    return pose;
}

static void push_at(llmar_stream *stream, uint64_t body, int frame, uint64_t time_ns)
{
    llmar_pose pose = pose_at(body, frame, time_ns);
    EXPECT(LLMAR_OK, llmar_stream_push(stream, &pose, 1, NULL));
}

/* Takes all events there are, behind the `have` of which `to` holds already. */
static size_t poll_into(llmar_stream *stream, llmar_event to[MAX_EVENTS], size_t have)
{
    size_t count = 0;
    to[have].struct_size = sizeof to[have];
    EXPECT(LLMAR_OK, llmar_stream_poll(stream, NULL, to + have, MAX_EVENTS - have, &count));
    CHECK(have + count < MAX_EVENTS);
    return have + count;
}

static size_t poll_all(llmar_stream *stream)
{
    return poll_into(stream, events, 0);
}

/* Pushes the motion's frames from..to of a body and takes their events, behind the `have` there are. */
static size_t play(llmar_stream *stream, uint64_t body, int from, int to, llmar_event out[MAX_EVENTS], size_t have)
{
    for (int t = from; t < to; t++) {
        push_at(stream, body, t, (uint64_t)t * PERIOD);
        have = poll_into(stream, out, have);
    }
    return have;
}

static size_t count_kind(const llmar_event *of, size_t count, uint32_t kind)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += of[i].kind == kind;
    }
    return found;
}

/* Events but for what differs from run to run. */
static int same_events(const llmar_event *a, const llmar_event *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        llmar_event x = a[i], y = b[i];
        x.latency_ns = y.latency_ns = 0;
        if (memcmp(&x, &y, sizeof x) != 0) {
            fprintf(stderr, "event %zu differs: kind %u and %u at %llu and %llu\n", i, (unsigned)x.kind, (unsigned)y.kind,
                    (unsigned long long)x.time_ns, (unsigned long long)y.time_ns);
            return 0;
        }
    }
    return 1;
}

/* The events of one body's motion, as they come undisturbed. */
static size_t reference(llmar_event out[MAX_EVENTS])
{
    llmar_stream *stream = make_stream(NULL);
    size_t count = play(stream, 7, 0, FRAMES, out, 0);
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    count = poll_into(stream, out, count);
    llmar_stream_free(stream);
    return count;
}

static void null_pointers(void)
{
    const llmar_status null = LLMAR_ERROR_NULL_POINTER;
    llmar_stream *none = NULL, *stream = make_stream(NULL);
    llmar_pose pose = pose_at(1, 0, 0);
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    const char *texts[] = {"a", NULL};
    uint8_t bytes[4] = {1, 1, 1, 1};
    size_t size = 77;
    uint32_t state = 77;

    EXPECT(null, llmar_stream_create(NULL, NULL, &none));
    EXPECT(null, llmar_stream_create(model, NULL, NULL));
    EXPECT(null, llmar_stream_push(NULL, &pose, 1, NULL));
    EXPECT(null, llmar_stream_push(stream, NULL, 1, NULL));
    EXPECT(LLMAR_OK, llmar_stream_push(stream, NULL, 0, NULL));
    EXPECT(null, llmar_stream_push(NULL, NULL, 0, NULL));
    pose.joints = NULL;
    EXPECT(null, llmar_stream_push(stream, &pose, 1, NULL));
    EXPECT(null, llmar_stream_advance(NULL, 1));
    EXPECT(null, llmar_stream_poll(NULL, NULL, events, MAX_EVENTS, &size));
    EXPECT(null, llmar_stream_poll(stream, NULL, NULL, 1, &size));
    EXPECT(null, llmar_stream_poll(stream, NULL, events, MAX_EVENTS, NULL));
    CHECK(size == 77);
    EXPECT(LLMAR_OK, llmar_stream_poll(stream, NULL, NULL, 0, &size));
    CHECK(size == 0);
    EXPECT(null, llmar_stream_flush(NULL));
    EXPECT(null, llmar_stream_wait(NULL, NULL));
    EXPECT(null, llmar_stream_reset(NULL));
    EXPECT(null, llmar_stream_remove_body(NULL, 1));
    EXPECT(null, llmar_stream_get_stats(NULL, &stats));
    EXPECT(null, llmar_stream_get_stats(stream, NULL));
    EXPECT(null, llmar_stream_reset_stats(NULL));
    EXPECT(null, llmar_stream_save(NULL, bytes, 4, &size));
    EXPECT(null, llmar_stream_save(stream, bytes, 4, NULL));
    EXPECT(null, llmar_stream_load(NULL, bytes, 4));
    EXPECT(null, llmar_stream_load(stream, NULL, 4));
    EXPECT(null, llmar_stream_set_labels(NULL, texts, 1));
    EXPECT(null, llmar_stream_set_labels(stream, NULL, 1));
    EXPECT(null, llmar_stream_set_labels(stream, texts, 2));
    EXPECT(null, llmar_stream_filter_labels(NULL, bytes, 4));
    EXPECT(null, llmar_stream_filter_labels(stream, NULL, 4));
    EXPECT(null, llmar_stream_label_state(NULL, 0, &state));
    EXPECT(null, llmar_stream_label_state(stream, 0, NULL));
    CHECK(none == NULL && state == 77);
    llmar_stream_free(NULL);
    llmar_stream_free(stream);
}

static void struct_sizes(void)
{
    const llmar_status wrong = LLMAR_ERROR_STRUCT_SIZE;
    static const uint32_t sizes[] = {0, 1, 4, 7, 4097, UINT32_MAX};
    llmar_stream *none = NULL, *stream = make_stream(NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t count = 77;
        llmar_stream_params params = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_stream_create(model, &params, &none));
        llmar_pose poses[2] = {pose_at(1, 0, 0), pose_at(1, 1, PERIOD)};
        llmar_status statuses[2] = {5, 5};
        poses[1].struct_size = sizes[i]; /* refused before any frame is taken */
        EXPECT(wrong, llmar_stream_push(stream, poses, 2, statuses));
        poses[0].struct_size = sizes[i];
        EXPECT(wrong, llmar_stream_push(stream, poses, 2, statuses));
        CHECK(statuses[0] == 5 && statuses[1] == 5);
        events[0].struct_size = sizes[i];
        EXPECT(wrong, llmar_stream_poll(stream, NULL, events, MAX_EVENTS, &count));
        events[0].struct_size = sizeof *events;
        llmar_call_params call = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_stream_poll(stream, &call, events, MAX_EVENTS, &count));
        EXPECT(wrong, llmar_stream_wait(stream, &call));
        llmar_stream_stats stats = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_stream_get_stats(stream, &stats));
        CHECK(count == 77);
    }
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.frames == 0 && stats.bodies == 0 && none == NULL);
    llmar_stream_free(stream);

    /* A program that knows a larger event: what this library does not know becomes 0. */
    struct larger {
        llmar_event event;
        uint64_t later[2];
    } large[MAX_EVENTS];
    memset(large, 0x55, sizeof large);
    stream = make_stream(NULL);
    for (int t = 0; t < FRAMES; t++) {
        push_at(stream, 7, t, (uint64_t)t * PERIOD);
    }
    size_t count = 0, expected = reference(events);
    large[0].event.struct_size = sizeof *large;
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    EXPECT(LLMAR_OK, llmar_stream_poll(stream, NULL, &large[0].event, MAX_EVENTS, &count));
    CHECK(count == expected && count > 3);
    for (size_t i = 0; i < count; i++) {
        CHECK(large[i].event.struct_size == sizeof *large && large[i].later[0] == 0 && large[i].later[1] == 0);
        CHECK(large[i].event.time_ns == events[i].time_ns && large[i].event.label == events[i].label);
    }
    llmar_stream_free(stream);
}

static void settings(void)
{
    llmar_stream *none = NULL;
    const llmar_stream_params good = {.struct_size = sizeof good};
    llmar_stream_params bad;
#define REFUSE(expected, field, value)                                  \
    bad = good;                                                         \
    bad.field = (value);                                                \
    EXPECT(expected, llmar_stream_create(model, &bad, &none));          \
    CHECK(none == NULL)
    REFUSE(LLMAR_ERROR_LIMIT, threads, 257);
    REFUSE(LLMAR_ERROR_UNKNOWN_LAYOUT, layout, "nobody");
    REFUSE(LLMAR_ERROR_INVALID_UTF8, layout, "\xff");
    REFUSE(LLMAR_ERROR_INVALID_ENUM, up, 7);
    REFUSE(LLMAR_ERROR_INVALID_ENUM, handedness, 2);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, metres_per_unit, -1.0f);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, metres_per_unit, NAN);
    REFUSE(LLMAR_ERROR_LIMIT, max_bodies, 257);
    REFUSE(LLMAR_ERROR_LIMIT, queued_frames, 65537);
    REFUSE(LLMAR_ERROR_LIMIT, queued_events, 65537);
    REFUSE(LLMAR_ERROR_LIMIT, top_k, LLMAR_STREAM_TOP + 1);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, unknown_below, 1.5f);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, smoothing, 1.0f);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, smoothing, NAN);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, begin_at, 1.5f);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, end_below, 0.9f); /* above begin_at */
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, min_confidence, NAN);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, worker, 2);
    REFUSE(LLMAR_ERROR_INVALID_ENUM, flags, 2);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, tolerance, 1.5f);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, tolerance, NAN);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, max_gap_ns, 86401 * SECOND);
    REFUSE(LLMAR_ERROR_INVALID_ARGUMENT, forget_after_ns, UINT64_MAX);
#undef REFUSE
    const char *no_middle[] = {"hand_left", "hand_right"};
    EXPECT(LLMAR_OK, llmar_layout_register("stream_hands", no_middle, 2));
    bad = good;
    bad.layout = "stream_hands"; /* nothing by which a body could be placed */
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_create(model, &bad, &none));
    CHECK(none == NULL);
    llmar_stream_free(make_stream(&good));
}

/* One bad frame among good ones: each has its own status, the good ones are taken. */
static void frames(void)
{
    llmar_stream_params params = {.struct_size = sizeof params};
    params.max_bodies = 2;
    params.queued_frames = 8;
    llmar_stream *stream = make_stream(&params);
    enum { COUNT = 8 };
    llmar_status statuses[COUNT];
    const uint64_t base = 5 * SECOND;
    llmar_pose poses[COUNT] = {
        pose_at(1, 0, base),
        pose_at(1, 1, base),                /* again */
        pose_at(1, 1, base - 1),            /* back */
        pose_at(1, 1, base + 11 * SECOND),  /* too far ahead */
        pose_at(2, 0, base + PERIOD),
        pose_at(3, 0, base + PERIOD),       /* one too many */
        pose_at(1, 1, base + PERIOD),       /* other joints */
        pose_at(1, 1, base + PERIOD),
    };
    poses[6].joint_count = JOINTS - 1;
    EXPECT(LLMAR_ERROR_DUPLICATE_TIME, llmar_stream_push(stream, poses, COUNT, statuses));
    const llmar_status expected[COUNT] = {LLMAR_OK, LLMAR_ERROR_DUPLICATE_TIME, LLMAR_ERROR_BACKWARD_TIME, LLMAR_ERROR_FUTURE_TIME,
                                          LLMAR_OK, LLMAR_ERROR_BODY_LIMIT,     LLMAR_ERROR_SHAPE,         LLMAR_OK};
    CHECK(memcmp(statuses, expected, sizeof expected) == 0);
    char detail[512];
    llmar_last_error(detail, sizeof detail);
    CHECK(strstr(detail, "poses[1]") != NULL);
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.frames == 3 && stats.queued_frames == 3 && stats.bodies == 2);

    /* A far time is believed when a second one confirms it. */
    llmar_pose far = pose_at(1, 2, base + 100 * SECOND), farther = pose_at(1, 3, base + 101 * SECOND);
    EXPECT(LLMAR_ERROR_FUTURE_TIME, llmar_stream_push(stream, &far, 1, NULL));
    EXPECT(LLMAR_ERROR_FUTURE_TIME, llmar_stream_push(stream, &far, 1, NULL)); /* the same once more is not */
    EXPECT(LLMAR_OK, llmar_stream_push(stream, &farther, 1, NULL));
    EXPECT(LLMAR_ERROR_BACKWARD_TIME, llmar_stream_push(stream, &far, 1, NULL));

    /* The queue: the frame behind it goes through after a poll. */
    int t = 1;
    llmar_status status = LLMAR_OK;
    for (; status == LLMAR_OK && t < 20; t++) {
        llmar_pose next = pose_at(1, t, base + 101 * SECOND + (uint64_t)t * PERIOD);
        status = llmar_stream_push(stream, &next, 1, NULL);
    }
    EXPECT(LLMAR_ERROR_QUEUE_FULL, status);
    CHECK(t == 6); /* 4 frames waited, 4 more were taken */
    size_t size = 0;
    EXPECT(LLMAR_ERROR_QUEUE_FULL, llmar_stream_save(stream, NULL, 0, &size));
    poll_all(stream);
    push_at(stream, 1, t, base + 101 * SECOND + (uint64_t)t * PERIOD);

    /* Joints that were not seen: in one way or another, all of them or some. */
    float unseen[FRAME];
    uint8_t valid[JOINTS] = {0};
    float confidence[JOINTS] = {0};
    for (int i = 0; i < FRAME; i++) {
        unseen[i] = i % 2 ? NAN : INFINITY;
    }
    uint64_t now = base + 103 * SECOND;
    llmar_pose blind = pose_at(1, 0, now);
    blind.joints = unseen;
    EXPECT(LLMAR_OK, llmar_stream_push(stream, &blind, 1, NULL));
    blind = pose_at(1, 0, now + 1);
    blind.valid = valid;
    EXPECT(LLMAR_OK, llmar_stream_push(stream, &blind, 1, NULL));
    poll_all(stream);
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.unseen_frames >= 2);
    blind = pose_at(1, 0, now + 2);
    blind.confidence = confidence; /* not below min_confidence, which is 0 */
    EXPECT(LLMAR_OK, llmar_stream_push(stream, &blind, 1, NULL));
    const uint64_t unseen_before = stats.unseen_frames;
    poll_all(stream);
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.unseen_frames == unseen_before);

    EXPECT(LLMAR_OK, llmar_stream_reset_stats(stream));
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.frames == 0 && stats.refused_frames == 0 && stats.decisions == 0 && stats.latency.max_ns == 0 && stats.bodies == 1);

    /* Any time is good again after a reset. */
    EXPECT(LLMAR_OK, llmar_stream_reset(stream));
    push_at(stream, 9, 0, 0);
    llmar_stream_free(stream);
}

/* Decisions, actions that begin and end, bodies that are forgotten, and how they fit together. */
static void what_comes_out(void)
{
    llmar_stream_params params = {.struct_size = sizeof params};
    params.begin_at = 0.01f; /* the tiny model believes little */
    params.end_below = 0.005f;
    params.unknown_below = 1.0f;
    params.top_k = 4;
    llmar_stream *stream = make_stream(&params);
    size_t count = play(stream, 7, 0, FRAMES, events, 0);
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    count = poll_into(stream, events, count);
    size_t decisions = count_kind(events, count, LLMAR_EVENT_DECISION);
    CHECK(decisions > 3);
    CHECK(count_kind(events, count, LLMAR_EVENT_BEGIN) > 0);
    CHECK(count_kind(events, count, LLMAR_EVENT_BEGIN) == count_kind(events, count, LLMAR_EVENT_END));
    for (size_t i = 0; i < count; i++) {
        const llmar_event *e = &events[i];
        CHECK(e->struct_size == sizeof *e && e->body == 7 && e->start_ns <= e->time_ns && e->end_ns <= e->time_ns && e->label < 4);
        CHECK(e->probability >= 0.0f && e->probability <= 1.0f);
        if (e->kind == LLMAR_EVENT_DECISION) {
            float sum = 0.0f;
            CHECK(e->top_count == 4 && e->top[0].label == e->label && e->tokens > 0 && e->unknown <= 1 && e->idle == 0);
            for (uint32_t k = 0; k < e->top_count; k++) {
                CHECK(k == 0 || e->top[k].probability <= e->top[k - 1].probability);
                sum += e->top[k].probability;
            }
            CHECK(fabsf(sum - 1.0f) < 0.01f && e->missing == 0.0f && e->missing_joints[0] == 0 && e->latency_ns > 0);
            CHECK(e->top[4].label == LLMAR_NO_LABEL);
        } else {
            CHECK(e->top_count == 0 && e->tokens == 0 && e->latency_ns == 0);
        }
    }
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.frames == FRAMES && stats.decisions == decisions && stats.passes >= decisions && stats.rows >= stats.passes);
    CHECK(stats.latency.p50_ns > 0 && stats.latency.p50_ns <= stats.latency.p99_ns && stats.update.max_ns > 0);
    CHECK(stats.queued_events == 0 && stats.queued_frames == 0 && stats.dropped_events == 0 && stats.reserved == 0);

    const uint64_t end = (uint64_t)(FRAMES - 1) * PERIOD;
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_advance(stream, end - 1));
    EXPECT(LLMAR_OK, llmar_stream_advance(stream, end + 3 * SECOND)); /* not yet */
    CHECK(poll_all(stream) == 0);
    EXPECT(LLMAR_OK, llmar_stream_advance(stream, end + 3 * SECOND + 1));
    CHECK(poll_all(stream) == 1 && events[0].kind == LLMAR_EVENT_FORGOTTEN && events[0].body == 7 && events[0].label == LLMAR_NO_LABEL);

    EXPECT(LLMAR_ERROR_UNKNOWN_BODY, llmar_stream_remove_body(stream, 7));
    push_at(stream, 8, 0, end + 4 * SECOND);
    EXPECT(LLMAR_OK, llmar_stream_remove_body(stream, 8));
    EXPECT(LLMAR_ERROR_UNKNOWN_BODY, llmar_stream_remove_body(stream, 8));
    count = poll_all(stream);
    CHECK(count == 1 && events[0].kind == LLMAR_EVENT_FORGOTTEN && events[0].body == 8);
    llmar_stream_free(stream);

    /* Events that nobody takes, of a worker: the newest are kept. A poll of one's own makes no more than there is room for. */
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    for (uint32_t worker = 0; worker < 2; worker++) {
        params = (llmar_stream_params){.struct_size = sizeof params};
        params.queued_events = 2;
        params.worker = worker;
        stream = make_stream(&params);
        for (int t = 0; t < FRAMES; t++) {
            push_at(stream, 7, t, (uint64_t)t * PERIOD);
        }
        EXPECT(LLMAR_OK, llmar_stream_flush(stream));
        EXPECT(LLMAR_OK, llmar_stream_wait(stream, NULL));
        count = poll_all(stream);
        EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
        CHECK(count == (worker ? 2 : want) && stats.dropped_events == want - count && same_events(events, all + want - count, count));
        llmar_stream_free(stream);
    }

    /* A few at a time, and no decisions at all. */
    stream = make_stream(NULL);
    for (int t = 0; t < FRAMES; t++) {
        push_at(stream, 7, t, (uint64_t)t * PERIOD);
    }
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    size_t have = 0, got = 3;
    while (got == 3) {
        events[have].struct_size = sizeof *events;
        EXPECT(LLMAR_OK, llmar_stream_poll(stream, NULL, events + have, 3, &got));
        have += got;
    }
    CHECK(have == want && same_events(events, all, want));
    llmar_stream_free(stream);
    params = (llmar_stream_params){.struct_size = sizeof params};
    params.flags = LLMAR_STREAM_ACTIONS_ONLY;
    params.begin_at = 0.01f;
    params.end_below = 0.005f;
    stream = make_stream(&params);
    count = play(stream, 7, 0, FRAMES, events, 0);
    CHECK(count > 0 && count_kind(events, count, LLMAR_EVENT_DECISION) == 0);
    llmar_stream_free(stream);
}

static void labels(void)
{
    llmar_stream *stream = make_stream(NULL);
    const uint8_t only_wave[4] = {0, 0, 9, 0}, nobody[4] = {0};
    uint32_t state = 77;
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_label_state(stream, 4, &state));
    EXPECT(LLMAR_ERROR_SHAPE, llmar_stream_filter_labels(stream, only_wave, 3));
    EXPECT(LLMAR_ERROR_SHAPE, llmar_stream_filter_labels(stream, only_wave, 0));
    CHECK(state == 77);
    EXPECT(LLMAR_OK, llmar_stream_filter_labels(stream, only_wave, 4));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_filter_labels(stream, nobody, 4));
    for (uint32_t label = 0; label < 4; label++) {
        EXPECT(LLMAR_OK, llmar_stream_label_state(stream, label, &state));
        CHECK(state == (label == 2 ? LLMAR_LABEL_ALLOWED : LLMAR_LABEL_DENIED));
    }
    size_t count = play(stream, 7, 0, FRAMES, events, 0);
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(events[i].label == 2 && events[i].probability > 0.99f);
    }
    EXPECT(LLMAR_OK, llmar_stream_filter_labels(stream, NULL, 0));
    EXPECT(LLMAR_OK, llmar_stream_label_state(stream, 0, &state));
    CHECK(state == LLMAR_LABEL_ALLOWED);

    const char *two[] = {"jump", "hop"}, *twice[] = {"jump", "jump"}, *empty[] = {""}, *odd[] = {"\xff"};
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_set_labels(stream, two, 0));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_set_labels(stream, twice, 2));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_set_labels(stream, empty, 1));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_stream_set_labels(stream, odd, 1));
    EXPECT(LLMAR_ERROR_LIMIT, llmar_stream_set_labels(stream, two, 1000000));
    EXPECT(LLMAR_OK, llmar_stream_label_state(stream, 3, &state));
    EXPECT(LLMAR_OK, llmar_stream_filter_labels(stream, only_wave, 4));
    EXPECT(LLMAR_OK, llmar_stream_set_labels(stream, two, 2)); /* lifts the filter */
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_stream_label_state(stream, 2, &state));
    EXPECT(LLMAR_OK, llmar_stream_label_state(stream, 0, &state));
    CHECK(state == LLMAR_LABEL_ALLOWED);
    EXPECT(LLMAR_OK, llmar_stream_reset(stream));
    count = play(stream, 7, 0, FRAMES, events, 0);
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(events[i].label < 2);
    }
    /* Back to the model's own, and to the answers of before. */
    EXPECT(LLMAR_OK, llmar_stream_set_labels(stream, NULL, 0));
    EXPECT(LLMAR_OK, llmar_stream_reset(stream));
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    count = play(stream, 7, 0, FRAMES, events, 0);
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    count = poll_into(stream, events, count);
    CHECK(count == want && same_events(events, all, want));
    llmar_stream_free(stream);
}

/* Probabilities of the best label, decision by decision, where a stream may leave them open by `tolerance`. */
static size_t best_probabilities(float tolerance, float to[MAX_EVENTS])
{
    enum { MANY = 30 }; /* so many that not all of their nodes are evaluated */
    char texts[MANY][16];
    const char *labels_of[MANY];
    for (int i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof texts[i], "act %d", i);
        labels_of[i] = texts[i];
    }
    llmar_stream_params params = {.struct_size = sizeof params, .smoothing = -1.0f, .tolerance = tolerance, .top_k = 1};
    llmar_stream *stream = make_stream(&params);
    EXPECT(LLMAR_OK, llmar_stream_set_labels(stream, labels_of, MANY));
    size_t count = play(stream, 7, 0, FRAMES, events, 0), told = 0;
    for (size_t i = 0; i < count; i++) {
        if (events[i].kind == LLMAR_EVENT_DECISION) {
            to[told++] = events[i].probability;
        }
    }
    CHECK(told > 3);
    llmar_stream_free(stream);
    return told;
}

/* A negative tolerance is exact, 0 is the default, and a wide one shows. */
static void tolerances(void)
{
    float exact[MAX_EVENTS], near[MAX_EVENTS], other[MAX_EVENTS];
    const size_t count = best_probabilities(-1.0f, exact);
    CHECK(best_probabilities(1e-6f, near) == count);
    for (size_t i = 0; i < count; i++) {
        CHECK(fabsf(exact[i] - near[i]) <= 2e-6f);
    }
    CHECK(best_probabilities(0.0f, near) == count && best_probabilities(0.15f, other) == count);
    CHECK(memcmp(near, other, count * sizeof *near) == 0);
    CHECK(best_probabilities(1.0f, other) == count);
    float widest = 0.0f;
    for (size_t i = 0; i < count; i++) {
        widest = fmaxf(widest, fabsf(exact[i] - other[i]));
    }
    CHECK(widest > 1e-4f);
}

/* Limits of a call: nothing is lost, the next poll goes on. */
static void limits(void)
{
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    llmar_stream *stream = make_stream(NULL);
    llmar_cancel *cancel = NULL;
    EXPECT(LLMAR_OK, llmar_cancel_create(&cancel));
    EXPECT(LLMAR_OK, llmar_cancel_request(cancel));
    llmar_call_params cancelled = {.struct_size = sizeof cancelled}, late = {.struct_size = sizeof late}, odd = late;
    cancelled.cancel = cancel;
    late.deadline_ns = 1;
    odd.reserved = 1;
    size_t have = 0, got = 77;
    for (int t = 0; t < FRAMES; t++) {
        push_at(stream, 7, t, (uint64_t)t * PERIOD);
        events[have].struct_size = sizeof *events;
        EXPECT(LLMAR_ERROR_CANCELLED, llmar_stream_poll(stream, &cancelled, events + have, MAX_EVENTS - have, &got));
        EXPECT(LLMAR_ERROR_DEADLINE_EXCEEDED, llmar_stream_poll(stream, &late, events + have, MAX_EVENTS - have, &got));
        EXPECT(LLMAR_ERROR_UNSUPPORTED, llmar_stream_poll(stream, &odd, events + have, MAX_EVENTS - have, &got));
        CHECK(got == 77);
        have = poll_into(stream, events, have);
    }
    EXPECT(LLMAR_OK, llmar_stream_wait(stream, &cancelled)); /* without a worker there is nothing to wait for */
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    have = poll_into(stream, events, have);
    CHECK(have == want && same_events(events, all, want));

    /* Decisions that would be late are left out and counted. */
    llmar_stream_free(stream);
    llmar_stream_params params = {.struct_size = sizeof params};
    params.deadline_ns = 1;
    stream = make_stream(&params);
    have = play(stream, 7, 0, FRAMES, events, 0);
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(have == 0 && stats.decisions == 0 && stats.skipped_decisions > 3);
    llmar_stream_free(stream);
    llmar_cancel_free(cancel);
}

static void worker(void)
{
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    llmar_stream_params params = {.struct_size = sizeof params};
    params.worker = 1;
    params.threads = 2;
    llmar_stream *stream = make_stream(&params);
    for (int t = 0; t < FRAMES; t++) {
        push_at(stream, 7, t, (uint64_t)t * PERIOD);
    }
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    EXPECT(LLMAR_OK, llmar_stream_wait(stream, NULL));
    size_t count = poll_all(stream);
    CHECK(count == want && same_events(events, all, want));
    llmar_stream_stats stats = {.struct_size = sizeof stats};
    EXPECT(LLMAR_OK, llmar_stream_get_stats(stream, &stats));
    CHECK(stats.frames == FRAMES && stats.queued_frames == 0 && stats.queued_events == 0);
    EXPECT(LLMAR_OK, llmar_stream_reset(stream));
    for (int t = 0; t < FRAMES; t++) {
        push_at(stream, 7, t, (uint64_t)t * PERIOD);
    }
    llmar_stream_free(stream); /* in the middle of its work */
}

static uint8_t *save(llmar_stream *stream, size_t *size)
{
    EXPECT(LLMAR_OK, llmar_stream_save(stream, NULL, 0, size));
    CHECK(*size > 0);
    uint8_t *state = malloc(*size);
    CHECK(state != NULL);
    size_t again = 0;
    if (*size > 1) {
        state[0] = 0x5a;
        EXPECT(LLMAR_ERROR_BUFFER_TOO_SMALL, llmar_stream_save(stream, state, *size - 1, &again));
        CHECK(again == *size && state[0] == 0x5a);
    }
    EXPECT(LLMAR_OK, llmar_stream_save(stream, state, *size, &again));
    CHECK(again == *size);
    return state;
}

/* A stream goes on from a saved state as if it had never stopped. */
static void states(void)
{
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    static const int cuts[] = {0, 1, 13, 25, FRAMES};
    size_t size = 0;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        llmar_stream *first = make_stream(NULL), *second = make_stream(NULL);
        size_t count = play(first, 7, 0, cuts[i], events, 0);
        uint8_t *state = save(first, &size);
        llmar_stream_free(first);
        push_at(second, 99, 3, 77 * SECOND); /* is forgotten */
        EXPECT(LLMAR_OK, llmar_stream_load(second, state, size));
        count = play(second, 7, cuts[i], FRAMES, events, count);
        EXPECT(LLMAR_OK, llmar_stream_flush(second));
        count = poll_into(second, events, count);
        CHECK(count == want && same_events(events, all, want));
        free(state);
        llmar_stream_free(second);
    }

    llmar_stream *stream = make_stream(NULL), *foreign = NULL;
    size_t count = play(stream, 7, 0, 25, events, 0);
    uint8_t *state = save(stream, &size);
    EXPECT(LLMAR_OK, llmar_stream_create(other_model, NULL, &foreign));
    EXPECT(LLMAR_ERROR_FOREIGN_STATE, llmar_stream_load(foreign, state, size));
    llmar_stream_free(foreign);
    llmar_stream_params params = {.struct_size = sizeof params};
    params.max_bodies = 3;
    foreign = make_stream(&params);
    EXPECT(LLMAR_ERROR_FOREIGN_STATE, llmar_stream_load(foreign, state, size));
    llmar_stream_free(foreign);
    foreign = make_stream(NULL);
    const char *two[] = {"jump", "hop"};
    EXPECT(LLMAR_OK, llmar_stream_set_labels(foreign, two, 2));
    EXPECT(LLMAR_ERROR_FOREIGN_STATE, llmar_stream_load(foreign, state, size));
    llmar_stream_free(foreign);

    /* Damaged bytes: an error, and the stream is as it was. */
    EXPECT(LLMAR_ERROR_FORMAT, llmar_stream_load(stream, state, 0));
    for (size_t cut = 1; cut < size; cut += 1 + size / 37) {
        EXPECT(LLMAR_ERROR_FORMAT, llmar_stream_load(stream, state, size - cut));
    }
    count = play(stream, 7, 25, FRAMES, events, count);
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    count = poll_into(stream, events, count);
    CHECK(count == want && same_events(events, all, want));
    free(state);
    llmar_stream_free(stream);
}

/* A stream whose model its maker has freed. */
static void model_freed_first(const char *path)
{
    llmar_model *own = open_model(path);
    llmar_stream *stream = NULL;
    EXPECT(LLMAR_OK, llmar_stream_create(own, NULL, &stream));
    const char *label = NULL;
    EXPECT(LLMAR_OK, llmar_model_label(own, 2, &label));
    llmar_model_free(own);
    static llmar_event all[MAX_EVENTS];
    const size_t want = reference(all);
    size_t count = play(stream, 7, 0, FRAMES, events, 0);
    EXPECT(LLMAR_OK, llmar_stream_flush(stream));
    count = poll_into(stream, events, count);
    CHECK(count == want && same_events(events, all, want));
    CHECK(strcmp(label, "wave") == 0); /* lives as long as the stream */
    llmar_stream_free(stream);
}

static atomic_int met;
static llmar_stream *contested;

static void *use_it(void *unused)
{
    (void)unused;
    llmar_pose pose = pose_at(1, 0, 0);
    while (!atomic_load(&met)) {
        llmar_stream_push(contested, &pose, 0, NULL);
        llmar_status status = llmar_stream_filter_labels(contested, NULL, 0); /* long enough to be met */
        CHECK(status == LLMAR_OK || status == LLMAR_ERROR_IN_USE);
    }
    return NULL;
}

/* Against the rule, but not a crash: of two calls at once the second is refused, and the stream goes on. */
static void used_by_two(void)
{
    contested = make_stream(NULL);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, use_it, NULL) == 0);
    struct timespec moment = {0, 1000000};
    llmar_status status = LLMAR_OK;
    while (status != LLMAR_ERROR_IN_USE) {
        nanosleep(&moment, NULL); /* not sched_yield: the two would take turns for ever on one core */
        llmar_stream_stats stats = {.struct_size = sizeof stats};
        status = llmar_stream_get_stats(contested, &stats);
        CHECK(status == LLMAR_OK || status == LLMAR_ERROR_IN_USE);
    }
    atomic_store(&met, 1);
    CHECK(pthread_join(other, NULL) == 0);
    EXPECT(LLMAR_OK, llmar_stream_reset(contested));
    llmar_stream_free(contested);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3 || (argc == 4 && strcmp(argv[3], "states") == 0));
    model = open_model(argv[1]);
    other_model = open_model(argv[2]);
    moving_clip(values, 1);
    if (argc == 4) {
        states();
    } else {
        null_pointers();
        struct_sizes();
        settings();
        frames();
        what_comes_out();
        labels();
        tolerances();
        limits();
        worker();
        model_freed_first(argv[1]);
        used_by_two();
    }
    llmar_model_free(other_model);
    llmar_model_free(model);
    return 0;
}
