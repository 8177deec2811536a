/* The ABI as programs were compiled against it: numbers, sizes and offsets that must never change. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

#define SAME(left, right) _Static_assert((left) == (right), #left " must stay " #right)
#define FIELD(type, field, offset) SAME(offsetof(type, field), offset)

SAME(LLMAR_OK, 0);
SAME(LLMAR_ERROR_NULL_POINTER, -1);
SAME(LLMAR_ERROR_STRUCT_SIZE, -2);
SAME(LLMAR_ERROR_INVALID_UTF8, -3);
SAME(LLMAR_ERROR_INVALID_ENUM, -4);
SAME(LLMAR_ERROR_INVALID_ARGUMENT, -5);
SAME(LLMAR_ERROR_BUFFER_TOO_SMALL, -6);
SAME(LLMAR_ERROR_IN_USE, -7);
SAME(LLMAR_ERROR_PANIC, -8);
SAME(LLMAR_ERROR_POISONED, -9);
SAME(LLMAR_ERROR_OUT_OF_MEMORY, -10);
SAME(LLMAR_ERROR_READER, -11);
SAME(LLMAR_ERROR_IO, -20);
SAME(LLMAR_ERROR_FORMAT, -21);
SAME(LLMAR_ERROR_VERSION, -22);
SAME(LLMAR_ERROR_CHECKSUM, -23);
SAME(LLMAR_ERROR_LIMIT, -24);
SAME(LLMAR_ERROR_SHAPE, -25);
SAME(LLMAR_ERROR_UNSUPPORTED, -26);
SAME(LLMAR_ERROR_UNKNOWN_LAYOUT, -30);
SAME(LLMAR_ERROR_EMPTY_CLIP, -31);
SAME(LLMAR_ERROR_CANCELLED, -40);
SAME(LLMAR_ERROR_DEADLINE_EXCEEDED, -41);
SAME(LLMAR_LOG_ERROR, 1);
SAME(LLMAR_LOG_WARN, 2);
SAME(LLMAR_LOG_INFO, 3);
SAME(LLMAR_LOG_DEBUG, 4);
SAME(LLMAR_MODEL_VERIFY, 1);
SAME(LLMAR_MODEL_BORROW, 2);
SAME(LLMAR_SCHEME_F32, 1);
SAME(LLMAR_SCHEME_F16, 2);
SAME(LLMAR_SCHEME_Q8, 3);
SAME(LLMAR_SCHEME_Q4, 4);
SAME(LLMAR_NAME_BYTES, 64);
SAME(sizeof(llmar_label_score), 12);
FIELD(llmar_label_score, label, 0);
FIELD(llmar_label_score, log_prob, 4);
FIELD(llmar_label_score, probability, 8);

#if UINTPTR_MAX == UINT64_MAX
SAME(sizeof(llmar_model_params), 24);
FIELD(llmar_model_params, flags, 4);
FIELD(llmar_model_params, device, 8);
FIELD(llmar_model_params, memory_budget, 16);
SAME(sizeof(llmar_reader), 32);
FIELD(llmar_reader, user, 8);
FIELD(llmar_reader, read, 16);
FIELD(llmar_reader, size, 24);
SAME(sizeof(llmar_model_info), 328);
FIELD(llmar_model_info, format_version, 4);
FIELD(llmar_model_info, file_bytes, 8);
FIELD(llmar_model_info, label_count, 16);
FIELD(llmar_model_info, token_count, 20);
FIELD(llmar_model_info, code_count, 24);
FIELD(llmar_model_info, frames, 28);
FIELD(llmar_model_info, persons, 32);
FIELD(llmar_model_info, joints, 36);
FIELD(llmar_model_info, coords, 40);
FIELD(llmar_model_info, causal, 44);
FIELD(llmar_model_info, scheme, 48);
FIELD(llmar_model_info, hidden_size, 52);
FIELD(llmar_model_info, layers, 56);
FIELD(llmar_model_info, vocab_size, 60);
FIELD(llmar_model_info, temperature, 64);
FIELD(llmar_model_info, unknown_below, 68);
FIELD(llmar_model_info, name, 72);
FIELD(llmar_model_info, producer, 136);
FIELD(llmar_model_info, layout, 200);
FIELD(llmar_model_info, device, 264);
SAME(sizeof(llmar_recognizer_params), 24);
FIELD(llmar_recognizer_params, threads, 4);
FIELD(llmar_recognizer_params, top_k, 8);
FIELD(llmar_recognizer_params, unknown_below, 12);
FIELD(llmar_recognizer_params, decoding, 16);
FIELD(llmar_recognizer_params, scoring, 20);
SAME(sizeof(llmar_call_params), 24);
FIELD(llmar_call_params, deadline_ns, 8);
FIELD(llmar_call_params, cancel, 16);
SAME(sizeof(llmar_clip), 72);
FIELD(llmar_clip, coords, 4);
FIELD(llmar_clip, joints, 8);
FIELD(llmar_clip, frames, 16);
FIELD(llmar_clip, persons, 24);
FIELD(llmar_clip, joint_count, 32);
FIELD(llmar_clip, layout, 40);
FIELD(llmar_clip, timestamps_ns, 48);
FIELD(llmar_clip, valid, 56);
FIELD(llmar_clip, fps, 64);
SAME(sizeof(llmar_recognition), 104);
FIELD(llmar_recognition, unknown, 4);
FIELD(llmar_recognition, top, 8);
FIELD(llmar_recognition, top_capacity, 16);
FIELD(llmar_recognition, top_count, 24);
FIELD(llmar_recognition, tokens, 32);
FIELD(llmar_recognition, token_capacity, 40);
FIELD(llmar_recognition, token_count, 48);
FIELD(llmar_recognition, tokenize_ns, 56);
FIELD(llmar_recognition, prompt_ns, 64);
FIELD(llmar_recognition, label_ns, 72);
FIELD(llmar_recognition, prompt_rows, 80);
FIELD(llmar_recognition, label_rows, 88);
FIELD(llmar_recognition, missing, 96);
#endif

int main(void)
{
    CHECK(llmar_abi_version() == ((uint32_t)LLMAR_ABI_MAJOR << 16 | LLMAR_ABI_MINOR));
    CHECK(strchr(llmar_version_string(), '.') != NULL);
    CHECK(strcmp(llmar_status_string(LLMAR_OK), "ok") == 0);
    CHECK(strcmp(llmar_status_string(12345), "unknown status") == 0);
    return 0;
}
