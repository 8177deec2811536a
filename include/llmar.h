/*
 * libllmar: names human actions in skeleton clips, on the device.
 * Generated from llmar-sys/src/ffi by `make header`; change the sources, not this file.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Status.  Calls return LLMAR_OK (0) or a negative LLMAR_ERROR_ constant. Outputs are written on success only.
 *   llmar_last_error says in words what went wrong. The library never prints, never exits and never aborts the process.
 * Structs.  Each begins with uint32_t struct_size, which the caller sets to sizeof(the struct); zero in every other field means the
 *   default, so `llmar_clip clip = {.struct_size = sizeof clip};` (C99) is a good start. A NULL params pointer means all defaults. A
 *   library that is newer than the program takes the fields that the program does not have as zero; an older one refuses fields that it
 *   does not know with LLMAR_ERROR_UNSUPPORTED unless they are zero. Any other struct_size is LLMAR_ERROR_STRUCT_SIZE.
 * Texts.  UTF-8 with a NUL, both ways. A text that comes back through a const char ** belongs to the library and lives as long as the
 *   function says; it is never freed by the caller.
 * Handles.  Opaque pointers. Freeing NULL is allowed. Where a handle is const, several threads may make calls with it at once. A
 *   recognizer or stream belongs to one thread at a time; another call meanwhile returns LLMAR_ERROR_IN_USE. No call may be made with a handle
 *   while, or after, it is freed. Every function says its own rule after "Threads:".
 * Errors.  What a function lists after "Errors:" are those to expect; LLMAR_ERROR_PANIC and LLMAR_ERROR_POISONED can come from any.
 */

#ifndef LLMAR_H
#define LLMAR_H

#include <stddef.h>
#include <stdint.h>

/**
 * Major number of the ABI that this header describes. It is also the number in the library's SONAME. Another major number: do not call.
 */
#define LLMAR_ABI_MAJOR 0

/**
 * Minor number of the ABI that this header describes. It grows when functions, constants or struct fields are added.
 */
#define LLMAR_ABI_MINOR 5

/**
 * Bytes of the name fields of llmar_model_info, the terminating NUL included. A longer name is cut between two characters.
 */
#define LLMAR_NAME_BYTES 64

/**
 * Flag of llmar_model_params: recompute the SHA-256 over the tensors while opening, which reads the whole file, and look into all of them.
 * Without it, structure and metadata are checked, and the values of all tensors but the language model's weights and the tokenizer's tables;
 * opening then takes milliseconds.
 */
#define LLMAR_MODEL_VERIFY 1

/**
 * Flag of llmar_model_params for llmar_model_open_memory: use the caller's memory where it lies instead of a copy. It must start at a
 * multiple of 64, and must stay as it is until the model and every recognizer made from it are freed.
 */
#define LLMAR_MODEL_BORROW 2

/**
 * Decoding: the labels of highest probability, exactly, by best-first search over their tokens. The default.
 */
#define LLMAR_DECODING_EXACT 0

/**
 * Decoding: token by token, always the likeliest that still leads to a label. One label comes back, not always the best, and its probability
 * is an estimate.
 */
#define LLMAR_DECODING_GREEDY 1

/**
 * Scoring: each label by its log-probability in the language model, behind the prompt. The default.
 */
#define LLMAR_SCORING_LANGUAGE_MODEL 0

/**
 * Scoring: each label by the words of its text alone, without the language model, so that an action that training never saw is recognized by a
 * description of it. A linear map of the checkpoint reads from a clip which of its words the label should have; a label's score is the cosine
 * between these and the words that it has. A probability is softmax(cosine / temperature) over the recognizer's labels, and log_prob is its
 * natural logarithm; the checkpoint's temperature was chosen on actions that its training did not see, and for others in other words
 * probabilities may be too high or too low. Words are cut at white space; case, and signs at their ends, do not count; words that the checkpoint
 * does not know (`llmar info` lists those that it does) are passed over.
 */
#define LLMAR_SCORING_WORDS 1

/**
 * Storage of the language model's matrices: 32-bit floats.
 */
#define LLMAR_SCHEME_F32 1

/**
 * Storage of the language model's matrices: 16-bit floats.
 */
#define LLMAR_SCHEME_F16 2

/**
 * Storage of the language model's matrices: 8-bit integers in groups of 32.
 */
#define LLMAR_SCHEME_Q8 3

/**
 * Storage of the language model's matrices: 4-bit integers in groups of 32.
 */
#define LLMAR_SCHEME_Q4 4

/**
 * Labels that an llmar_event has room for.
 */
#define LLMAR_STREAM_TOP 5

/**
 * label of an llmar_event that names none.
 */
#define LLMAR_NO_LABEL UINT32_MAX

/**
 * Flag of llmar_stream_params: no event for decisions, only for actions that begin and end and bodies that are forgotten.
 */
#define LLMAR_STREAM_ACTIONS_ONLY 1

/**
 * Event: what a body does now, as far as the model can tell.
 */
#define LLMAR_EVENT_DECISION 1

/**
 * Event: an action has begun.
 */
#define LLMAR_EVENT_BEGIN 2

/**
 * Event: the action that had begun has ended.
 */
#define LLMAR_EVENT_END 3

/**
 * Event: a body was not seen for too long, or was removed; its place is free.
 */
#define LLMAR_EVENT_FORGOTTEN 4

/**
 * Axis of the frames that points up: as the library has it, +y in 3D and -y (images) in 2D.
 */
#define LLMAR_UP_DEFAULT 0

/**
 * +x points up. 3D only.
 */
#define LLMAR_UP_PLUS_X 1

/**
 * -x points up. 3D only.
 */
#define LLMAR_UP_MINUS_X 2

/**
 * +y points up: OpenXR, Unity, Godot.
 */
#define LLMAR_UP_PLUS_Y 3

/**
 * -y points up: images, and cameras that look along +z.
 */
#define LLMAR_UP_MINUS_Y 4

/**
 * +z points up: Unreal, ROS. 3D only.
 */
#define LLMAR_UP_PLUS_Z 5

/**
 * -z points up. 3D only.
 */
#define LLMAR_UP_MINUS_Z 6

/**
 * Handedness of the frames' axes: right, as OpenXR, Godot, ROS and Azure Kinect have it.
 */
#define LLMAR_HANDEDNESS_RIGHT 0

/**
 * Left, as Unity and Unreal have it. A body's left stays its left.
 */
#define LLMAR_HANDEDNESS_LEFT 1

/**
 * Label state: it may be named.
 */
#define LLMAR_LABEL_ALLOWED 0

/**
 * Label state: llmar_stream_filter_labels denies it.
 */
#define LLMAR_LABEL_DENIED 1

/**
 * Label state: it needs joints that the layout of the frames does not have, and is never named.
 */
#define LLMAR_LABEL_NOT_OBSERVABLE 2

/**
 * A flag that stops calls: raised from any thread, looked at by every call that was given it (llmar_call_params). Opaque.
 */
typedef struct llmar_cancel llmar_cancel;

/**
 * An opened checkpoint: immutable, reference counted, shared by recognizers of any thread. Opaque.
 */
typedef struct llmar_model llmar_model;

/**
 * Recognizes clips with one model. Belongs to one thread at a time and keeps its model alive. Opaque.
 */
typedef struct llmar_recognizer llmar_recognizer;

/**
 * Follows bodies frame by frame with one model. Belongs to one thread at a time and keeps its model alive. Opaque.
 */
typedef struct llmar_stream llmar_stream;

/**
 * Result of a call: LLMAR_OK, or one of the negative LLMAR_ERROR_ constants. Later versions may add constants, never change one.
 */
typedef int32_t llmar_status;

/**
 * How important a message is; lower is more important.
 */
typedef uint32_t llmar_log_level;

/**
 * Receives one message: UTF-8, one line, without a line end, valid only during the call.
 *
 * It is called on the thread whose call has something to say, possibly on several threads at once. It must return normally (no longjmp,
 * no C++ exception). It may call this library, except llmar_set_log; messages that such calls would give are dropped.
 */
typedef void (*llmar_log_fn)(void *user, llmar_log_level level, const char *message);

/**
 * How a model is opened. NULL or all zero after struct_size: the defaults.
 */
typedef struct llmar_model_params {
    /**
     * sizeof(llmar_model_params)
     */
    uint32_t struct_size;
    /**
     * LLMAR_MODEL_ flags, or-ed.
     */
    uint32_t flags;
    /**
     * Where the model and its recognizers run, NUL-terminated: "cpu", "cuda:0" for the first NVIDIA GPU ("cuda:1", …; an error where it cannot be
     * used), or "auto" for the first GPU where it can be used and otherwise the CPU, which the log then says with the reason. NULL: "cpu".
     */
    const char *device;
    /**
     * Bytes that the model and all its recognizers may allocate for what they keep between calls: buffers and caches, and on a GPU the weights as well.
     * The mapped checkpoint is not counted. What does not fit fails with LLMAR_ERROR_MEMORY_BUDGET and the bytes it needs; a batch is cut into
     * passes that fit. 0: no limit.
     */
    uint64_t memory_budget;
} llmar_model_params;

/**
 * Reads the next bytes of a checkpoint into buf, at most len (above 0).
 *
 * Returns how many were read, 0 at the end of the data, or a negative number for a failure. It is called on the thread that opens the
 * model, must return normally (no longjmp, no C++ exception) and must not call llmar_ functions with the handles in use.
 */
typedef int64_t (*llmar_read_fn)(void *user, void *buf, size_t len);

/**
 * Tells how many bytes the reader will give in all, or a negative number if it cannot say.
 */
typedef int64_t (*llmar_size_fn)(void *user);

/**
 * A source of bytes: an asset inside an archive, a socket, an encrypted file.
 */
typedef struct llmar_reader {
    /**
     * sizeof(llmar_reader)
     */
    uint32_t struct_size;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * Passed to the functions as it is.
     */
    void *user;
    /**
     * Reads on from where the last call ended.
     */
    llmar_read_fn read;
    /**
     * Total size, called once before the first read. NULL: unknown, the data is read to its end.
     */
    llmar_size_fn size;
} llmar_reader;

/**
 * What a model is. Filled by llmar_model_get_info; the caller sets struct_size only.
 */
typedef struct llmar_model_info {
    /**
     * sizeof(llmar_model_info), set by the caller.
     */
    uint32_t struct_size;
    /**
     * Version of the checkpoint format.
     */
    uint32_t format_version;
    /**
     * Size of the checkpoint in bytes.
     */
    uint64_t file_bytes;
    /**
     * Labels that the model was trained for.
     */
    uint32_t label_count;
    /**
     * Action tokens of a clip: what the token buffers of llmar_recognition and llmar_tokenize_clip need at most.
     */
    uint32_t token_count;
    /**
     * Size of the codebook: action tokens are below this.
     */
    uint32_t code_count;
    /**
     * Frames that a clip is resampled to.
     */
    uint32_t frames;
    /**
     * Persons fed to the model, 1 or 2.
     */
    uint32_t persons;
    /**
     * Joints of the model's layout.
     */
    uint32_t joints;
    /**
     * Coordinates that the model was trained on, 2 or 3.
     */
    uint32_t coords;
    /**
     * 1 when later frames never change earlier tokens, else 0.
     */
    uint32_t causal;
    /**
     * LLMAR_SCHEME_ constant.
     */
    uint32_t scheme;
    /**
     * Features of the language model's residual stream.
     */
    uint32_t hidden_size;
    /**
     * Layers of the language model.
     */
    uint32_t layers;
    /**
     * Vocabulary of the language model.
     */
    uint32_t vocab_size;
    /**
     * Scores are divided by this before they become probabilities.
     */
    float temperature;
    /**
     * Probability below which the best label is not believed; 0 never says unknown.
     */
    float unknown_below;
    /**
     * Name of the model, NUL-terminated UTF-8.
     */
    char name[LLMAR_NAME_BYTES];
    /**
     * Program that wrote the checkpoint, NUL-terminated UTF-8.
     */
    char producer[LLMAR_NAME_BYTES];
    /**
     * Skeleton layout that the model was trained on, NUL-terminated UTF-8.
     */
    char layout[LLMAR_NAME_BYTES];
    /**
     * Where it runs, NUL-terminated UTF-8: "cpu", or "cuda:0 (name of the GPU)".
     */
    char device[LLMAR_NAME_BYTES];
} llmar_model_info;

/**
 * Settings of a recognizer. NULL or all zero after struct_size: the defaults.
 */
typedef struct llmar_recognizer_params {
    /**
     * sizeof(llmar_recognizer_params)
     */
    uint32_t struct_size;
    /**
     * Threads that work on a call, 0 to 256. 0 and 1: the caller's thread alone. More: workers that llmar_recognizer_free ends. The answers
     * do not depend on it, bit for bit.
     */
    uint32_t threads;
    /**
     * Labels of an answer, best first; 0 for 5. At least the number of labels gives the full distribution, and costs more.
     */
    uint32_t top_k;
    /**
     * The answer is "unknown" when the best probability is below this, above 0 to 1. 0: the model's own threshold, or with LLMAR_SCORING_WORDS,
     * for which it was not chosen, never unknown. Negative: never unknown.
     */
    float unknown_below;
    /**
     * LLMAR_DECODING_ constant: how the answer is found. With LLMAR_SCORING_WORDS, LLMAR_DECODING_EXACT.
     */
    uint32_t decoding;
    /**
     * LLMAR_SCORING_ constant: what labels are told by.
     */
    uint32_t scoring;
} llmar_recognizer_params;

/**
 * A skeleton clip: T frames of M persons with V joints of C coordinates each. The library only reads it, and only during the call.
 */
typedef struct llmar_clip {
    /**
     * sizeof(llmar_clip). In an array, the same in every element.
     */
    uint32_t struct_size;
    /**
     * C: 2 (pixels) or 3 (metres).
     */
    uint32_t coords;
    /**
     * T * M * V * C floats: joints[((t * M + m) * V + v) * C + c]. A joint with a NaN or infinite coordinate counts as invalid.
     */
    const float *joints;
    /**
     * T, 1 to 65536.
     */
    size_t frames;
    /**
     * M, 1 to 16.
     */
    size_t persons;
    /**
     * V, as many as the layout has.
     */
    size_t joint_count;
    /**
     * Name of a built-in or registered layout, UTF-8; "kinect1_20 without spine, left_foot" for one with fewer joints.
     */
    const char *layout;
    /**
     * T times in nanoseconds, strictly increasing, from any zero. NULL: frames are evenly spaced.
     */
    const uint64_t *timestamps_ns;
    /**
     * T * M * V bytes: 0 marks an invalid joint. NULL: every joint with finite coordinates is valid.
     */
    const uint8_t *valid;
    /**
     * Frames a second when timestamps_ns is NULL; 0 if unknown. Must be 0 with timestamps.
     */
    float fps;
    /**
     * Must be 0.
     */
    uint32_t reserved;
} llmar_clip;

/**
 * Limits of one call. NULL or all zero after struct_size: none.
 */
typedef struct llmar_call_params {
    /**
     * sizeof(llmar_call_params)
     */
    uint32_t struct_size;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * The call gives up when so many nanoseconds have passed since it began; 0: never.
     */
    uint64_t deadline_ns;
    /**
     * Stops the call when raised; NULL: none.
     */
    const struct llmar_cancel *cancel;
} llmar_call_params;

/**
 * One label of an answer. This struct does not grow.
 */
typedef struct llmar_label_score {
    /**
     * Index into the recognizer's labels.
     */
    uint32_t label;
    /**
     * Exact natural logarithm of p(label, end of answer | prompt); with LLMAR_SCORING_WORDS, of probability.
     */
    float log_prob;
    /**
     * Calibrated probability over all labels of the recognizer, 0 to 1. Exact when the recognizer's top_k takes in all labels; else the middle of
     * an interval of at most .01 that is known to hold it. In events of a stream smoothed, of an interval of llmar_stream_params.tolerance.
     */
    float probability;
} llmar_label_score;

/**
 * An answer. The caller sets struct_size, the two buffers and their capacities; the rest is written by a call that succeeds and is left as
 * it is by one that fails.
 */
typedef struct llmar_recognition {
    /**
     * sizeof(llmar_recognition), set by the caller. In an array, the same in every element.
     */
    uint32_t struct_size;
    /**
     * Out: 1 when the best probability is below the threshold, else 0.
     */
    uint32_t unknown;
    /**
     * In: room for the best labels. NULL with capacity 0: not wanted.
     */
    struct llmar_label_score *top;
    /**
     * In: elements of top. Fewer than the recognizer's top_k: the best so many are written.
     */
    size_t top_capacity;
    /**
     * Out: elements written to top, best first.
     */
    size_t top_count;
    /**
     * In: room for the action tokens. NULL with capacity 0: not wanted.
     */
    uint16_t *tokens;
    /**
     * In: elements of tokens; when not 0, at least token_count of llmar_model_info.
     */
    size_t token_capacity;
    /**
     * Out: elements written to tokens.
     */
    size_t token_count;
    /**
     * Out: wall time from skeleton to tokens, in nanoseconds. This and the next four are of the whole batch.
     */
    uint64_t tokenize_ns;
    /**
     * Out: wall time of the prompt in the language model, in nanoseconds.
     */
    uint64_t prompt_ns;
    /**
     * Out: wall time of label scoring, in nanoseconds.
     */
    uint64_t label_ns;
    /**
     * Out: rows (token positions) that the language model ran for prompts.
     */
    uint64_t prompt_rows;
    /**
     * Out: rows that the language model ran for labels.
     */
    uint64_t label_rows;
    /**
     * Out: share of the joints that the model needs, over all frames, that were missing and filled, 0 to 1.
     */
    float missing;
    /**
     * Out: 0.
     */
    uint32_t reserved;
} llmar_recognition;

/**
 * Settings of a stream. NULL or all zero after struct_size: the defaults.
 */
typedef struct llmar_stream_params {
    /**
     * sizeof(llmar_stream_params)
     */
    uint32_t struct_size;
    /**
     * Threads that work on an update, 0 to 256; 0 and 1: one alone. The answers do not depend on it.
     */
    uint32_t threads;
    /**
     * Name of the layout of the frames, built in or registered. NULL: the model's own. Coordinates are as many as the model has.
     */
    const char *layout;
    /**
     * LLMAR_UP_ constant: the axis of the frames that points up. 0: +y.
     */
    uint32_t up;
    /**
     * LLMAR_HANDEDNESS_ constant of the frames' axes. 0: right.
     */
    uint32_t handedness;
    /**
     * Metres a unit of the frames: 0.01 for centimetres. 0: 1.
     */
    float metres_per_unit;
    /**
     * Bodies at one time, up to 256, each with its place in memory from the start. 0: 8.
     */
    uint32_t max_bodies;
    /**
     * Frames that may wait for a poll or the worker, a body's frame each, up to 65536. 0: 512.
     */
    uint32_t queued_frames;
    /**
     * Events that may wait, up to 65536; the oldest is dropped, and counted, for one more. 0: 256.
     */
    uint32_t queued_events;
    /**
     * Action tokens between two decisions. 0: 1. A token is four frames at the model's rate.
     */
    uint32_t tokens_per_decision;
    /**
     * Labels that a decision names, up to LLMAR_STREAM_TOP. 0: 3.
     */
    uint32_t top_k;
    /**
     * A decision is "unknown" when its best probability is below this, above 0 to 1. 0: the model's own threshold. Negative: never unknown.
     */
    float unknown_below;
    /**
     * Weight of the decisions before in the probabilities of a decision, above 0 to below 1. 0: 0.5. Negative: none.
     */
    float smoothing;
    /**
     * Smoothed probability from which on an action has begun, up to 1. 0: 0.6.
     */
    float begin_at;
    /**
     * Smoothed probability below which it has ended, at most begin_at. 0: 0.3, or begin_at where that is less.
     */
    float end_below;
    /**
     * Joints of less confidence were not seen. 0: all were.
     */
    float min_confidence;
    /**
     * 1: decisions come from a thread of the stream's own; push and poll then never wait for one. 0: they are made in llmar_stream_poll.
     */
    uint32_t worker;
    /**
     * LLMAR_STREAM_ flags, or-ed.
     */
    uint32_t flags;
    /**
     * Width of the interval in which the best label's probability is known when a decision is made, up to 1. 0: 0.15. Negative: no width, all
     * probabilities are exact. Which labels are best is certain in any case. What is told lies a fifth of the way up that interval, where the exact
     * value mostly is; narrower ones cost time.
     */
    float tolerance;
    /**
     * A decision that would not be there so many nanoseconds after its newest frame was pushed is not made, and counted. 0: every decision is made.
     */
    uint64_t deadline_ns;
    /**
     * A body that was not seen for longer begins a new window: what lies between is not guessed. 0: 0.5 s. At most a day, as the next three.
     */
    uint64_t max_gap_ns;
    /**
     * A body that was not seen for longer is forgotten. 0: 3 s.
     */
    uint64_t forget_after_ns;
    /**
     * A timestamp that lies further beyond the newest is refused; a second, later one near it is believed. 0: 10 s.
     */
    uint64_t max_jump_ns;
    /**
     * What a model that reads whole clips looks back on; of no meaning for live models. 0: 2.5 s.
     */
    uint64_t window_ns;
} llmar_stream_params;

/**
 * One frame of one body. The library only reads it, and only during the call.
 */
typedef struct llmar_pose {
    /**
     * sizeof(llmar_pose). In an array, the same in every element.
     */
    uint32_t struct_size;
    /**
     * V, as many as the stream's layout has.
     */
    uint32_t joint_count;
    /**
     * Who: any number that stays the same for a body.
     */
    uint64_t body;
    /**
     * When, in nanoseconds from any zero; later than the body's frame before.
     */
    uint64_t time_ns;
    /**
     * V * C floats in the stream's axes and units. A joint with a NaN or infinite coordinate was not seen.
     */
    const float *joints;
    /**
     * V bytes: 0 marks a joint that was not seen. NULL: every finite joint was.
     */
    const uint8_t *valid;
    /**
     * V numbers that are compared with min_confidence. NULL: not known.
     */
    const float *confidence;
} llmar_pose;

/**
 * What a stream tells. Filled by llmar_stream_poll. Times are those of the caller's frames.
 */
typedef struct llmar_event {
    /**
     * sizeof(llmar_event), set by the caller in the first element of the array.
     */
    uint32_t struct_size;
    /**
     * LLMAR_EVENT_ constant.
     */
    uint32_t kind;
    /**
     * Whom it is about.
     */
    uint64_t body;
    /**
     * The newest moment that it knows of, in nanoseconds. Of an action that ended because the body was lost: when it was seen again, or, where it was
     * forgotten, the last time it was seen.
     */
    uint64_t time_ns;
    /**
     * Decision: beginning of the window that was read. Begin and end: when the action began.
     */
    uint64_t start_ns;
    /**
     * End: when the action ended. Otherwise time_ns.
     */
    uint64_t end_ns;
    /**
     * Decision: the best label. Begin and end: the action. LLMAR_NO_LABEL: none.
     */
    uint32_t label;
    /**
     * Its smoothed probability; of an end the largest that it reached.
     */
    float probability;
    /**
     * Decision: 1 when the best probability is below the threshold.
     */
    uint32_t unknown;
    /**
     * Decision: 1 when the best label says that nothing happens.
     */
    uint32_t idle;
    /**
     * Decision: the best labels, best first, with smoothed probabilities and this decision's own log_prob (-infinity for a label that was not among its best).
     */
    struct llmar_label_score top[LLMAR_STREAM_TOP];
    /**
     * Elements of top that are filled.
     */
    uint32_t top_count;
    /**
     * Decision: action tokens read.
     */
    uint32_t tokens;
    /**
     * Decision: share of the joints that the model needs, over the window, that were missing and filled, 0 to 1.
     */
    float missing;
    /**
     * Decision: joints of the model that were not seen in the whole window: bit j % 64 of word j / 64.
     */
    uint64_t missing_joints[4];
    /**
     * Decision: nanoseconds from the push of the newest frame that it needed until it was there.
     */
    uint64_t latency_ns;
} llmar_event;

/**
 * A distribution of times in nanoseconds. Each percentile is at most 1/16 too large, the maximum exact. This struct does not grow.
 */
typedef struct llmar_percentiles {
    /**
     * Half of the times are not above it.
     */
    uint64_t p50_ns;
    /**
     * Nine of ten.
     */
    uint64_t p90_ns;
    /**
     * 99 of a hundred.
     */
    uint64_t p99_ns;
    /**
     * 999 of a thousand.
     */
    uint64_t p999_ns;
    /**
     * The largest.
     */
    uint64_t max_ns;
} llmar_percentiles;

/**
 * What a stream has done since it was made or its statistics were reset. Filled by llmar_stream_get_stats; the caller sets struct_size only.
 */
typedef struct llmar_stream_stats {
    /**
     * sizeof(llmar_stream_stats), set by the caller.
     */
    uint32_t struct_size;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Frames taken, a body's frame each.
     */
    uint64_t frames;
    /**
     * Frames refused with an error.
     */
    uint64_t refused_frames;
    /**
     * Frames in which nothing of the body was seen, or that came before it could be placed.
     */
    uint64_t unseen_frames;
    /**
     * Action tokens made.
     */
    uint64_t tokens;
    /**
     * Decisions made.
     */
    uint64_t decisions;
    /**
     * Decisions that were not made because they would have been late.
     */
    uint64_t skipped_decisions;
    /**
     * Events dropped because nobody took them.
     */
    uint64_t dropped_events;
    /**
     * Windows that were full and begun anew with their last half.
     */
    uint64_t reanchored;
    /**
     * Bodies that began a new window after a gap.
     */
    uint64_t gaps;
    /**
     * Passes through the language model.
     */
    uint64_t passes;
    /**
     * Rows (token positions) of them.
     */
    uint64_t rows;
    /**
     * Bodies now.
     */
    uint64_t bodies;
    /**
     * Frames that wait now.
     */
    uint64_t queued_frames;
    /**
     * Events that wait now.
     */
    uint64_t queued_events;
    /**
     * From the push of the newest frame that a decision needed until it was there.
     */
    struct llmar_percentiles latency;
    /**
     * Time of one update: all bodies whose decision was due, together.
     */
    struct llmar_percentiles update;
} llmar_stream_stats;

/**
 * The call did what it says.
 */
#define LLMAR_OK 0

/**
 * A pointer that must not be NULL is NULL.
 */
#define LLMAR_ERROR_NULL_POINTER -1

/**
 * struct_size is not the size of a version of that struct.
 */
#define LLMAR_ERROR_STRUCT_SIZE -2

/**
 * A text argument is not UTF-8.
 */
#define LLMAR_ERROR_INVALID_UTF8 -3

/**
 * A constant or flag that this library does not know.
 */
#define LLMAR_ERROR_INVALID_ENUM -4

/**
 * An argument is outside its documented range.
 */
#define LLMAR_ERROR_INVALID_ARGUMENT -5

/**
 * The caller's buffer cannot hold the result.
 */
#define LLMAR_ERROR_BUFFER_TOO_SMALL -6

/**
 * The handle belongs to one thread at a time and another call is using it, or a log callback made a call that it must not make.
 */
#define LLMAR_ERROR_IN_USE -7

/**
 * The library failed inside; this is a bug in it. The handle is poisoned: free it and make a new one. Other handles are not touched.
 */
#define LLMAR_ERROR_PANIC -8

/**
 * An earlier call on this handle ended with LLMAR_ERROR_PANIC. Only freeing it is useful.
 */
#define LLMAR_ERROR_POISONED -9

/**
 * There is not enough memory.
 */
#define LLMAR_ERROR_OUT_OF_MEMORY -10

/**
 * The caller's read callback failed, or broke its contract.
 */
#define LLMAR_ERROR_READER -11

/**
 * A file could not be opened or read.
 */
#define LLMAR_ERROR_IO -20

/**
 * A checkpoint is damaged or not a checkpoint.
 */
#define LLMAR_ERROR_FORMAT -21

/**
 * A checkpoint of a format version that this library does not read.
 */
#define LLMAR_ERROR_VERSION -22

/**
 * A checkpoint's tensors do not match their SHA-256.
 */
#define LLMAR_ERROR_CHECKSUM -23

/**
 * A count or size is beyond what this library accepts.
 */
#define LLMAR_ERROR_LIMIT -24

/**
 * Data has another shape than it must have, for example another number of joints than its layout.
 */
#define LLMAR_ERROR_SHAPE -25

/**
 * Sound, but it needs something that this library does not do.
 */
#define LLMAR_ERROR_UNSUPPORTED -26

/**
 * A layout that is neither built in nor registered.
 */
#define LLMAR_ERROR_UNKNOWN_LAYOUT -30

/**
 * A clip in which nothing can be recognised: no frame, or no valid joint that the model needs.
 */
#define LLMAR_ERROR_EMPTY_CLIP -31

/**
 * The cancel token was raised.
 */
#define LLMAR_ERROR_CANCELLED -40

/**
 * The deadline passed before the result was there.
 */
#define LLMAR_ERROR_DEADLINE_EXCEEDED -41

/**
 * No NVIDIA driver is installed, or it does not start.
 */
#define LLMAR_ERROR_NO_DRIVER -50

/**
 * The NVIDIA driver is older than this library needs.
 */
#define LLMAR_ERROR_OLD_DRIVER -51

/**
 * There is no GPU of that number.
 */
#define LLMAR_ERROR_NO_GPU -52

/**
 * The GPU's architecture is not supported.
 */
#define LLMAR_ERROR_GPU_ARCHITECTURE -53

/**
 * The library holds no kernels for the GPU's architecture, and the run-time compiler that would make them is not installed.
 */
#define LLMAR_ERROR_NO_KERNELS -54

/**
 * The GPU failed. This process can use nothing on it any more: free the model and its recognizers, and go on on the CPU or in a new process.
 */
#define LLMAR_ERROR_DEVICE_FAULT -55

/**
 * The memory budget of the model has too little left; llmar_last_error says how much is needed.
 */
#define LLMAR_ERROR_MEMORY_BUDGET -56

/**
 * A frame that is older than the newest of its body.
 */
#define LLMAR_ERROR_BACKWARD_TIME -60

/**
 * A second frame of one body with the same timestamp.
 */
#define LLMAR_ERROR_DUPLICATE_TIME -61

/**
 * A frame whose timestamp lies too far beyond the newest to be believed at once.
 */
#define LLMAR_ERROR_FUTURE_TIME -62

/**
 * A new body, for which the stream has no place left.
 */
#define LLMAR_ERROR_BODY_LIMIT -63

/**
 * A body that the stream does not know.
 */
#define LLMAR_ERROR_UNKNOWN_BODY -64

/**
 * As many frames wait as may: poll, then push the frame again.
 */
#define LLMAR_ERROR_QUEUE_FULL -65

/**
 * A saved state of another model or other settings.
 */
#define LLMAR_ERROR_FOREIGN_STATE -66

/**
 * The library failed inside.
 */
#define LLMAR_LOG_ERROR 1

/**
 * Something works, but not as asked.
 */
#define LLMAR_LOG_WARN 2

/**
 * Rare events: a model was opened.
 */
#define LLMAR_LOG_INFO 3

/**
 * Every call that fails, with its detail.
 */
#define LLMAR_LOG_DEBUG 4

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * ABI version of the library that is loaded: major * 65536 + minor.
 *
 * A program works with a library whose major number equals its header's LLMAR_ABI_MAJOR and whose minor number is at least
 * LLMAR_ABI_MINOR. Bindings that load the library at run time check this before any other call.
 *
 * Threads: any. Errors: none.
 */
uint32_t llmar_abi_version(void);

/**
 * Version of the library as text, for example "0.1.0". Static, never NULL, not to be freed.
 *
 * Threads: any. Errors: none.
 */
const char *llmar_version_string(void);

/**
 * Short English text of a status, for example "wrong shape". Static, never NULL, not to be freed; "unknown status" for any other number.
 * What exactly went wrong is in llmar_last_error.
 *
 * Threads: any. Errors: none.
 */
const char *llmar_status_string(llmar_status status);

/**
 * Copies what went wrong in the last call of this thread that failed.
 *
 * At most len bytes are written to buf, the terminating NUL included; a longer text is cut between two characters. buf may be NULL when
 * len is 0. Calls that succeed leave the text as it is, like errno.
 *
 * Returns the bytes that the whole text needs, NUL included, or 0 when no call of this thread has failed yet (buf is then "").
 *
 * Threads: any; each has its own text. Errors: none.
 */
size_t llmar_last_error(char *buf,
                        size_t len);

/**
 * Sets the process-wide receiver of log messages. Before the first call, and after one with a NULL function, there is none and the library
 * is silent; it never writes to stdout or stderr.
 *
 * max_level: the least important level to receive, 0 for LLMAR_LOG_INFO. When this returns, the previous function is not running on any
 * thread and will not be called again, so what its user pointer points to may be freed.
 *
 * Threads: any, but not from inside a log function. Errors: LLMAR_ERROR_INVALID_ENUM for an unknown level, LLMAR_ERROR_IN_USE from
 * inside a log function.
 */
llmar_status llmar_set_log(llmar_log_fn function,
                           void *user,
                           llmar_log_level max_level);

/**
 * Opens a .llmar file by mapping it: nothing is copied, and pages are read when they are needed. On a GPU the
 * weights are copied there.
 *
 * path: UTF-8, also on Windows. The file must not be changed while the model lives; renaming a new one over it is fine. params: NULL for the
 * defaults. out: receives a model with one reference; free it with llmar_model_free.
 *
 * Threads: any. Errors: LLMAR_ERROR_IO, LLMAR_ERROR_FORMAT, LLMAR_ERROR_VERSION, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNSUPPORTED,
 * LLMAR_ERROR_SHAPE, with LLMAR_MODEL_VERIFY also LLMAR_ERROR_CHECKSUM; LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_INVALID_ENUM (flags),
 * LLMAR_ERROR_INVALID_ARGUMENT (device). On a GPU also LLMAR_ERROR_NO_DRIVER, LLMAR_ERROR_OLD_DRIVER, LLMAR_ERROR_NO_GPU,
 * LLMAR_ERROR_GPU_ARCHITECTURE, LLMAR_ERROR_NO_KERNELS, LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT; with
 * the device "auto" the first five become a warning in the log.
 */
llmar_status llmar_model_open_path(const char *path,
                                   const struct llmar_model_params *params,
                                   struct llmar_model **out);

/**
 * Opens a checkpoint that is in memory.
 *
 * data, size: the bytes of a .llmar file. They are copied, unless LLMAR_MODEL_BORROW is set in params->flags. out: as for
 * llmar_model_open_path.
 *
 * Threads: any. Errors: as llmar_model_open_path, without LLMAR_ERROR_IO; LLMAR_ERROR_INVALID_ARGUMENT when borrowed memory does not start
 * at a multiple of 64; LLMAR_ERROR_OUT_OF_MEMORY.
 */
llmar_status llmar_model_open_memory(const void *data,
                                     size_t size,
                                     const struct llmar_model_params *params,
                                     struct llmar_model **out);

/**
 * Opens a checkpoint that the caller's functions read, from its first byte to its last, before this returns.
 *
 * reader: used during this call only. out: as for llmar_model_open_path. The bytes are kept in memory.
 *
 * Threads: any; the functions are called on the calling thread. Errors: as llmar_model_open_memory; LLMAR_ERROR_READER when a function
 * returns a negative number (read only), more bytes than were asked for, or fewer or more in all than size said.
 */
llmar_status llmar_model_open_reader(const struct llmar_reader *reader,
                                     const struct llmar_model_params *params,
                                     struct llmar_model **out);

/**
 * Checks a .llmar file completely, its SHA-256 included, and keeps nothing open. Reads the whole file.
 *
 * path: UTF-8. params: NULL for the defaults; LLMAR_MODEL_VERIFY is implied.
 *
 * Threads: any. Errors: as llmar_model_open_path with LLMAR_MODEL_VERIFY.
 */
llmar_status llmar_model_verify_path(const char *path, const struct llmar_model_params *params);

/**
 * Describes a model.
 *
 * info: the caller sets struct_size; the rest is written. Fields that are newer than this library become 0.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_STRUCT_SIZE.
 */
llmar_status llmar_model_get_info(const struct llmar_model *model, struct llmar_model_info *info);

/**
 * Number of labels that the model was trained for.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_model_label_count(const struct llmar_model *model, size_t *out_count);

/**
 * Text of one of the model's labels.
 *
 * index: below llmar_model_label_count. out_text: receives NUL-terminated UTF-8 that belongs to the model and lives as long as it.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (index), LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_model_label(const struct llmar_model *model,
                               size_t index,
                               const char **out_text);

/**
 * Adds a reference to a model: it then needs one more llmar_model_free.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_model_retain(const struct llmar_model *model);

/**
 * Gives one reference back; the last one frees the model, unless a recognizer still needs it. NULL is allowed.
 *
 * Threads: any, at once, each with its own reference. Errors: none.
 */
void llmar_model_free(struct llmar_model *model);

/**
 * Makes a recognizer: allocates its buffers, starts the workers that params->threads asks for, and runs the fixed part of the prompt.
 *
 * model: stays usable by others; the recognizer keeps it alive even when the caller frees it. params: NULL for the defaults. out: receives
 * the recognizer; free it with llmar_recognizer_free.
 *
 * Threads: any. Errors: LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_LIMIT (threads), LLMAR_ERROR_OUT_OF_MEMORY,
 * LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_UNSUPPORTED
 * (LLMAR_SCORING_WORDS with a checkpoint that has no reading of words).
 */
llmar_status llmar_recognizer_create(const struct llmar_model *model,
                                     const struct llmar_recognizer_params *params,
                                     struct llmar_recognizer **out);

/**
 * Replaces the labels to choose from. The prompt then lists them; the indices in answers count this list.
 *
 * labels: count texts, UTF-8, none empty, none twice. With LLMAR_SCORING_WORDS each has at least one word that the checkpoint knows, and no two
 * have the same of them. NULL with count 0: back to the model's own labels. When the call fails, the labels stay as they were. A new list is not
 * balanced (see llmar_recognizer_balance).
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_LIMIT, LLMAR_ERROR_FORMAT (a damaged tokenizer),
 * LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_recognizer_set_labels(struct llmar_recognizer *recognizer,
                                         const char *const *labels,
                                         size_t count);

/**
 * Takes out of later answers what each label gets whatever is shown: its probability is divided by its mean over these clips, and the
 * quotients are normalised. For labels that training never saw, of which a language model likes some more than others.
 *
 * clips: count of them, some dozens, of actions that are none of the labels, by the same camera. NULL with count 0: no longer. call: limits of
 * this call; NULL for none. Lasts until llmar_recognizer_set_labels. Every call then scores all labels, which takes longer where they are many;
 * answers are ordered by the balanced probabilities, and log_prob stays as it is. When the call fails, nothing changes.
 *
 * Threads: one at a time. Errors: as llmar_recognize_batch; LLMAR_ERROR_INVALID_ARGUMENT (LLMAR_DECODING_GREEDY; a list without clips).
 */
llmar_status llmar_recognizer_balance(struct llmar_recognizer *recognizer,
                                      const struct llmar_clip *clips,
                                      size_t count,
                                      const struct llmar_call_params *call);

/**
 * Recognizes one clip.
 *
 * call: limits of this call; NULL for none. result: see llmar_recognition; written only when the call succeeds.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_EMPTY_CLIP, LLMAR_ERROR_SHAPE, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNKNOWN_LAYOUT,
 * LLMAR_ERROR_FORMAT (weights that overflow), LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT,
 * LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED, LLMAR_ERROR_BUFFER_TOO_SMALL (token_capacity),
 * LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_recognize_clip(struct llmar_recognizer *recognizer,
                                  const struct llmar_clip *clip,
                                  const struct llmar_call_params *call,
                                  struct llmar_recognition *result);

/**
 * Recognizes clips together: the fixed part of the prompt is shared and the clips are packed without padding. The answers are those of
 * llmar_recognize_clip, bit for bit.
 *
 * clips, results: count elements each, in the same order. One bad clip fails the whole call; llmar_last_error names its index. With count 0
 * nothing happens.
 *
 * Threads: one at a time. Errors: as llmar_recognize_clip.
 */
llmar_status llmar_recognize_batch(struct llmar_recognizer *recognizer,
                                   const struct llmar_clip *clips,
                                   size_t count,
                                   const struct llmar_call_params *call,
                                   struct llmar_recognition *results);

/**
 * Turns a clip into its action tokens, without the language model.
 *
 * call: limits of this call, looked at once before it begins; NULL for none. tokens: room for capacity tokens, at least token_count of
 * llmar_model_info. out_count: receives how many were written. out_missing: NULL, or receives the share of the joints that were missing.
 *
 * Threads: one at a time. Errors: as llmar_recognize_clip.
 */
llmar_status llmar_tokenize_clip(struct llmar_recognizer *recognizer,
                                 const struct llmar_clip *clip,
                                 const struct llmar_call_params *call,
                                 uint16_t *tokens,
                                 size_t capacity,
                                 float *out_missing,
                                 size_t *out_count);

/**
 * Frees a recognizer, ends its workers and gives its reference to the model back; NULL is allowed.
 *
 * Threads: any, but no other function may be called with this recognizer at the same time or later. Errors: none.
 */
void llmar_recognizer_free(struct llmar_recognizer *recognizer);

/**
 * Makes a stream: allocates all that it will need, runs the fixed part of the prompt, and starts the worker if params->worker asks for one.
 *
 * model: stays usable by others; the stream keeps it alive even when the caller frees it. With a live model (causal in llmar_model_info, and a fixed
 * rate) tokens are only ever appended and an update costs a few rows; any other model works by reading params->window_ns anew at every
 * decision. params: NULL for the defaults. out: receives the stream; free it with llmar_stream_free.
 *
 * Threads: any. Errors: LLMAR_ERROR_INVALID_ARGUMENT (a number out of range, or a layout that lacks a joint by which the model places a body),
 * LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET,
 * LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_stream_create(const struct llmar_model *model,
                                 const struct llmar_stream_params *params,
                                 struct llmar_stream **out);

/**
 * Takes frames, one of a body each, in the order in which they stand. Never waits for an update; without a worker nothing else happens until
 * llmar_stream_poll.
 *
 * poses: count elements. statuses: NULL, or room for count results. A frame that is refused changes nothing, and the frames behind it are taken: the call
 * returns the status of the first that was refused, and statuses has each one's.
 *
 * Threads: one at a time. Errors: of a frame LLMAR_ERROR_SHAPE (joint_count), LLMAR_ERROR_BACKWARD_TIME, LLMAR_ERROR_DUPLICATE_TIME,
 * LLMAR_ERROR_FUTURE_TIME, LLMAR_ERROR_BODY_LIMIT, LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER (joints); of the call, before any frame is
 * taken, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_push(struct llmar_stream *stream,
                               const struct llmar_pose *poses,
                               size_t count,
                               llmar_status *statuses);

/**
 * Says what time it is, also when nobody is seen: bodies that were not seen for params->forget_after_ns are forgotten.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT for a time before the newest frame, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_advance(struct llmar_stream *stream,
                                  uint64_t time_ns);

/**
 * Takes events, oldest first. Without a worker this makes the decisions that are due, those of several bodies together; with one it only
 * takes what is there.
 *
 * call: limits of this call; NULL for none. events: room for capacity events, struct_size set in the first. out_count: receives how many were
 * written; fewer than capacity: there are no more for now.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED (no event is lost: the next poll goes on),
 * LLMAR_ERROR_FORMAT (weights that overflow), LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT,
 * LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE; LLMAR_ERROR_POISONED when the worker has failed.
 */
llmar_status llmar_stream_poll(struct llmar_stream *stream,
                               const struct llmar_call_params *call,
                               struct llmar_event *events,
                               size_t capacity,
                               size_t *out_count);

/**
 * Asks for the decisions that are not due yet and ends the actions that go on: the end of the input. Their events come with the next polls.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_flush(struct llmar_stream *stream);

/**
 * With a worker: waits until everything that was pushed has been worked on. Without one it does nothing.
 *
 * call: limits of this call; NULL for none.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER,
 * LLMAR_ERROR_IN_USE; LLMAR_ERROR_POISONED when the worker has failed.
 */
llmar_status llmar_stream_wait(struct llmar_stream *stream,
                               const struct llmar_call_params *call);

/**
 * Forgets all bodies, frames and events. Labels, settings and statistics stay, and any timestamp is believed again.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_reset(struct llmar_stream *stream);

/**
 * Forgets a body: its action ends, and its place is free.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_UNKNOWN_BODY, LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_remove_body(struct llmar_stream *stream,
                                      uint64_t body);

/**
 * Tells counters and latencies.
 *
 * stats: the caller sets struct_size.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_get_stats(struct llmar_stream *stream, struct llmar_stream_stats *stats);

/**
 * Begins counters and latencies anew.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_reset_stats(struct llmar_stream *stream);

/**
 * Writes everything known of all bodies, to go on later or in another process. Waits for the worker, if there is one.
 *
 * buf: room for capacity bytes. out_size: receives the size of the state, also when the room is too small; NULL with capacity 0 asks for it.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_BUFFER_TOO_SMALL, LLMAR_ERROR_QUEUE_FULL while frames wait that nobody has polled for,
 * LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_save(struct llmar_stream *stream,
                               uint8_t *buf,
                               size_t capacity,
                               size_t *out_size);

/**
 * Goes on from a state that llmar_stream_save wrote. What the stream knew before is forgotten; events that wait stay.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_FOREIGN_STATE for a state of another model, layout, label list or number of bodies,
 * LLMAR_ERROR_FORMAT for damaged bytes, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE. After an error the stream is as it was.
 */
llmar_status llmar_stream_load(struct llmar_stream *stream,
                               const uint8_t *buf,
                               size_t size);

/**
 * Replaces the labels to choose from, as llmar_recognizer_set_labels. A filter is lifted, and actions that go on are dropped without an event.
 *
 * Threads: one at a time. Errors: as llmar_recognizer_set_labels.
 */
llmar_status llmar_stream_set_labels(struct llmar_stream *stream,
                                     const char *const *labels,
                                     size_t count);

/**
 * Names only some labels; probabilities are then over those alone.
 *
 * allowed: count bytes, one a label of the stream's list; 0 denies it. NULL with count 0: all are allowed. Labels that are not observable stay so.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_SHAPE (count), LLMAR_ERROR_INVALID_ARGUMENT when none would be left (the filter stays as it was),
 * LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_filter_labels(struct llmar_stream *stream,
                                        const uint8_t *allowed,
                                        size_t count);

/**
 * Tells whether a label may be named: out_state receives an LLMAR_LABEL_ constant.
 *
 * label: below the number of labels, which llmar_model_label_count tells until llmar_stream_set_labels replaces them.
 *
 * Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT (label), LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
 */
llmar_status llmar_stream_label_state(struct llmar_stream *stream, uint32_t label, uint32_t *out_state);

/**
 * Frees a stream, ends its worker and gives its reference to the model back; NULL is allowed.
 *
 * Threads: any, but no other function may be called with this stream at the same time or later. Errors: none.
 */
void llmar_stream_free(struct llmar_stream *stream);

/**
 * Makes a cancel token that is not raised. Free it with llmar_cancel_free.
 *
 * Threads: any. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_cancel_create(struct llmar_cancel **out);

/**
 * Raises the token: calls that hold it return LLMAR_ERROR_CANCELLED within the time of preparing one clip or one layer of the language model, and so does every
 * later call that is given it until llmar_cancel_clear.
 *
 * Threads: any, at any time before llmar_cancel_free. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_cancel_request(const struct llmar_cancel *cancel);

/**
 * Lowers the token, so that it can be used again.
 *
 * Threads: any. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_cancel_clear(const struct llmar_cancel *cancel);

/**
 * Frees a cancel token; NULL is allowed. A call that was given it and has begun may still be running: it keeps what it needs, and can no
 * longer be cancelled.
 *
 * Threads: any, but no other function may be called with this token at the same time or later. Errors: none.
 */
void llmar_cancel_free(struct llmar_cancel *cancel);

/**
 * Number of layouts that are known: the built-in ones, then those that were registered.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_layout_count(size_t *out_count);

/**
 * Name of a layout, for example "ntu25".
 *
 * index: below llmar_layout_count; the name at an index never changes. out_text: receives a text that lives as long as the process.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (index), LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_layout_name(size_t index,
                               const char **out_text);

/**
 * Number of joints of a layout.
 *
 * layout: name, UTF-8. "kinect1_20 without spine, left_foot" is a layout too, in every place where one is named: a known one with fewer joints.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (a joint after "without" that is not there),
 * LLMAR_ERROR_LIMIT (a name beyond 128 bytes), LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_layout_joint_count(const char *layout,
                                      size_t *out_count);

/**
 * Name of a joint of a layout.
 *
 * layout: name, UTF-8. joint: below llmar_layout_joint_count, in the order in which clips hold them. out_text: receives a text that lives as
 * long as the process.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (joint), LLMAR_ERROR_LIMIT, LLMAR_ERROR_INVALID_UTF8,
 * LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_layout_joint_name(const char *layout,
                                     size_t joint,
                                     const char **out_text);

/**
 * Makes a layout known to the whole process, so that clips can name it.
 *
 * name: UTF-8. joints: count names, UTF-8, in the order in which clips hold them; they are matched with the names of the built-in joints
 * and their synonyms, ignoring case, spaces, '-' and '_'. Registering the same name with the same joints again does nothing.
 *
 * Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (a name in use with other joints, an empty or double name),
 * LLMAR_ERROR_LIMIT (more than 256 layouts, 256 joints or 128 bytes a name), LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
 */
llmar_status llmar_layout_register(const char *name,
                                   const char *const *joints,
                                   size_t count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LLMAR_H */
