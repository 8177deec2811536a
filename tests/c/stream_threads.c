/*
 * One model, a stream a thread: the answers are those of one thread, bit for bit. Argument: MODEL. Also runs under helgrind.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <pthread.h>

#include "support.h"

enum { THREADS = 8, ROOM = 64 };

typedef struct told {
    llmar_event events[ROOM];
    size_t count;
} told;

static llmar_model *model;
static float values[2][VALUES];
static told expected, got[THREADS];

/* Two bodies that move differently; takes what there is after every frame. */
static void follow(told *out)
{
    llmar_stream_params params = {.struct_size = sizeof params};
    params.max_bodies = 2;
    llmar_stream *stream = NULL;
    EXPECT(LLMAR_OK, llmar_stream_create(model, &params, &stream));
    memset(out, 0, sizeof *out);
    for (int t = 0; t <= FRAMES; t++) {
        if (t < FRAMES) {
            llmar_pose poses[2] = {{.struct_size = sizeof *poses}, {.struct_size = sizeof *poses}};
            for (int body = 0; body < 2; body++) {
                poses[body].joint_count = JOINTS;
                poses[body].body = (uint64_t)body;
                poses[body].time_ns = (uint64_t)t * 100000000;
                poses[body].joints = values[body] + t * JOINTS * COORDS;
            }
            EXPECT(LLMAR_OK, llmar_stream_push(stream, poses, 2, NULL));
        } else {
            EXPECT(LLMAR_OK, llmar_stream_flush(stream));
        }
        size_t count = 0;
        out->events[out->count].struct_size = sizeof(llmar_event);
        EXPECT(LLMAR_OK, llmar_stream_poll(stream, NULL, out->events + out->count, ROOM - out->count, &count));
        out->count += count;
        CHECK(out->count < ROOM);
    }
    for (size_t i = 0; i < out->count; i++) {
        out->events[i].latency_ns = 0;
    }
    llmar_stream_free(stream);
}

static void *thread(void *out)
{
    follow(out);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    model = open_model(argv[1]);
    moving_clip(values[0], 1);
    moving_clip(values[1], 2);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, thread, &got[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    follow(&expected); /* after the threads, so that they meet what is made at the first use */
    CHECK(expected.count > 8);
    for (int i = 0; i < THREADS; i++) {
        CHECK(got[i].count == expected.count && memcmp(got[i].events, expected.events, expected.count * sizeof(llmar_event)) == 0);
    }
    llmar_model_free(model);
    return 0;
}
