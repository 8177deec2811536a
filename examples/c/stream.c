/*
 * Tells what the people of a clip do while it plays:
 *
 *   stream MODEL.llmar CLIP.txt [--real-time]
 *
 * Every person is a body of a stream, and every event is a line. --real-time plays the clip at its speed, otherwise it goes as fast as it
 * can. The same program is there in C++, Rust and Python.
 *
 *   cc -O2 -Iinclude -o stream examples/c/stream.c examples/c/clip_text.c -lllmar
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clip_text.h"
#include "llmar.h"

#define ROOM 16 /* events that are taken at a time */

/* Prints what went wrong, in the library's words. */
static int complain(const char *about, llmar_status status)
{
    char detail[512];
    llmar_last_error(detail, sizeof detail);
    fprintf(stderr, "stream: %s: %s (status %d, %s)\n", about, detail, (int)status, llmar_status_string(status));
    return -1;
}

static const char *name_of(const llmar_model *model, uint32_t label)
{
    const char *text = "?";
    if (label != LLMAR_NO_LABEL) {
        llmar_model_label(model, label, &text);
    }
    return text;
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static void print_event(const llmar_model *model, const llmar_event *event)
{
    const char *label = name_of(model, event->label);
    const double probability = (double)event->probability;
    printf("%7.3f body %" PRIu64 " ", seconds(event->time_ns), event->body);
    switch (event->kind) {
    case LLMAR_EVENT_DECISION:
        printf("decision %s %.2f", label, probability);
        for (uint32_t i = 1; i < event->top_count; i++) {
            printf(", %s %.2f", name_of(model, event->top[i].label), (double)event->top[i].probability);
        }
        printf("%s\n", event->unknown ? " (unknown)" : "");
        break;
    case LLMAR_EVENT_BEGIN:
        printf("begin %s %.2f from %.3f\n", label, probability, seconds(event->start_ns));
        break;
    case LLMAR_EVENT_END:
        printf("end %s %.2f from %.3f to %.3f\n", label, probability, seconds(event->start_ns), seconds(event->end_ns));
        break;
    case LLMAR_EVENT_FORGOTTEN:
        printf("forgotten\n");
        break;
    default: /* of a later version */
        printf("event %" PRIu32 "\n", event->kind);
    }
}

/* Prints all events that there are now. Returns 0 or -1. */
static int poll_all(const llmar_model *model, llmar_stream *stream)
{
    llmar_event events[ROOM];
    size_t count = ROOM;
    while (count == ROOM) {
        events[0].struct_size = sizeof events[0];
        llmar_status status = llmar_stream_poll(stream, NULL, events, ROOM, &count);
        if (status != LLMAR_OK) {
            return complain("poll", status);
        }
        for (size_t i = 0; i < count; i++) {
            print_event(model, &events[i]);
        }
    }
    fflush(stdout);
    return 0;
}

/* Sleeps until `ns` have passed since `begin`. */
static void sleep_until(const struct timespec *begin, uint64_t ns)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t passed = (int64_t)(now.tv_sec - begin->tv_sec) * 1000000000 + (now.tv_nsec - begin->tv_nsec);
    int64_t left = (int64_t)ns - passed;
    if (left > 0) {
        struct timespec pause = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
        nanosleep(&pause, NULL);
    }
}

static int seen(const float *joints, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (isfinite(joints[i])) {
            return 1;
        }
    }
    return 0;
}

static int play(const llmar_model *model, llmar_stream *stream, const clip_text *clip, int real_time)
{
    const size_t width = clip->joints * clip->coords;
    const double fps = clip->fps > 0 ? (double)clip->fps : 30.0;
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (size_t t = 0; t < clip->frames; t++) {
        llmar_pose pose = {.struct_size = sizeof pose, .joint_count = (uint32_t)clip->joints};
        pose.time_ns = (uint64_t)((double)t * 1e9 / fps);
        if (real_time) {
            sleep_until(&begin, pose.time_ns);
        }
        for (size_t person = 0; person < clip->persons; person++) {
            pose.body = person;
            pose.joints = clip->values + (t * clip->persons + person) * width;
            if (!seen(pose.joints, width)) {
                continue; /* a person of whom nothing is seen is not there */
            }
            llmar_status status = llmar_stream_push(stream, &pose, 1, NULL);
            if (status != LLMAR_OK) {
                return complain("push", status);
            }
        }
        if (poll_all(model, stream) != 0) {
            return -1;
        }
    }
    llmar_status status = llmar_stream_flush(stream);
    return status == LLMAR_OK ? poll_all(model, stream) : complain("flush", status);
}

static int run(const llmar_model *model, const clip_text *clip, int real_time)
{
    llmar_model_info info = {.struct_size = sizeof info};
    llmar_status status = llmar_model_get_info(model, &info);
    if (status != LLMAR_OK) {
        return complain("model", status);
    }
    if (clip->coords != info.coords) {
        fprintf(stderr, "stream: the clip has %u coordinates, the model %u\n", (unsigned)clip->coords, (unsigned)info.coords);
        return -1;
    }
    llmar_stream_params params = {.struct_size = sizeof params};
    params.layout = clip->layout;
    params.max_bodies = (uint32_t)clip->persons;
    llmar_stream *stream = NULL;
    status = llmar_stream_create(model, &params, &stream);
    if (status != LLMAR_OK) {
        return complain("stream", status);
    }
    int result = play(model, stream, clip, real_time);
    llmar_stream_free(stream);
    return result;
}

int main(int argc, char **argv)
{
    const int real_time = argc == 4 && strcmp(argv[3], "--real-time") == 0;
    if (argc != 3 && !real_time) {
        fprintf(stderr, "usage: stream MODEL.llmar CLIP.txt [--real-time]\n");
        return 1;
    }
    uint32_t abi = llmar_abi_version();
    if (abi >> 16 != LLMAR_ABI_MAJOR || (abi & 0xffffu) < LLMAR_ABI_MINOR) {
        fprintf(stderr, "stream: built for ABI %d.%d, libllmar %s is of another\n", LLMAR_ABI_MAJOR, LLMAR_ABI_MINOR, llmar_version_string());
        return 1;
    }
    clip_text clip;
    char error[512];
    if (clip_text_read(argv[2], &clip, error, sizeof error) != 0) {
        fprintf(stderr, "stream: %s\n", error);
        return 1;
    }
    llmar_model *model = NULL;
    llmar_status status = llmar_model_open_path(argv[1], NULL, &model);
    int result = status == LLMAR_OK ? run(model, &clip, real_time) : complain(argv[1], status);
    llmar_model_free(model);
    clip_text_free(&clip);
    return result == 0 ? 0 : 1;
}
