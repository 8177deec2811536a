/* Opening models: path, memory, reader; sound and damaged. Arguments: MODEL FOLDER. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

static unsigned char *bytes; /* the model's file, at a multiple of 64 */
static size_t size;

static void read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    CHECK(end > 0 && fseek(file, 0, SEEK_SET) == 0);
    size = (size_t)end;
    bytes = aligned_alloc(64, (size + 63) / 64 * 64);
    CHECK(bytes != NULL && fread(bytes, 1, size, file) == size);
    fclose(file);
}

/* A reader over bytes that can misbehave. */
typedef struct source {
    size_t at, stop, at_once;
    int64_t told;
    int broken;
} source;

static int64_t source_read(void *user, void *buf, size_t len)
{
    source *from = user;
    size_t n = from->stop - from->at;
    if (from->broken) {
        return -1;
    }
    n = n < len ? n : len;
    n = n < from->at_once ? n : from->at_once;
    memcpy(buf, bytes + from->at, n);
    from->at += n;
    return (int64_t)n;
}

static int64_t source_size(void *user)
{
    return ((source *)user)->told;
}

static llmar_status open_source(source from, llmar_model **out)
{
    llmar_reader reader = {.struct_size = sizeof reader};
    reader.user = &from;
    reader.read = source_read;
    reader.size = source_size;
    return llmar_model_open_reader(&reader, NULL, out);
}

static void describe(const llmar_model *model)
{
    llmar_model_info info;
    memset(&info, 0x5a, sizeof info);
    info.struct_size = sizeof info;
    EXPECT(LLMAR_OK, llmar_model_get_info(model, &info));
    CHECK(info.struct_size == sizeof info && info.file_bytes == size && info.format_version == 1);
    CHECK(info.label_count == 4 && info.joints == JOINTS && info.coords == COORDS && info.persons == 1);
    CHECK(info.frames == 32 && info.token_count == 8 && info.code_count == 32 && info.causal == 0);
    CHECK(info.scheme == LLMAR_SCHEME_Q8 && info.hidden_size == 64 && info.layers == 2 && info.vocab_size == 300);
    CHECK(info.temperature > 0 && info.unknown_below >= 0 && info.unknown_below <= 1);
    CHECK(strcmp(info.name, "tiny") == 0 && strcmp(info.producer, "tests") == 0 && strcmp(info.layout, "kinect1_20") == 0);
    size_t count = 0;
    EXPECT(LLMAR_OK, llmar_model_label_count(model, &count));
    CHECK(count == info.label_count);
    const char *text = NULL;
    EXPECT(LLMAR_OK, llmar_model_label(model, 3, &text));
    CHECK(strcmp(text, "drink water") == 0);
    text = "untouched";
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_model_label(model, count, &text));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_model_label(model, SIZE_MAX, &text));
    CHECK(strcmp(text, "untouched") == 0);
}

/* Handles keep each other alive in any order of freeing. */
static void references(const char *path)
{
    llmar_model *model = open_model(path);
    EXPECT(LLMAR_OK, llmar_model_retain(model));
    llmar_model_free(model);
    describe(model);
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    llmar_model_free(model);
    float values[VALUES];
    llmar_clip clip = moving_clip(values, 1);
    answer a;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    llmar_recognizer_free(recognizer);
}

static void memory(void)
{
    llmar_model *model = NULL;
    llmar_model_params params = {.struct_size = sizeof params};
    params.flags = LLMAR_MODEL_VERIFY;
    unsigned char *copy = malloc(size + 1);
    CHECK(copy != NULL);
    memcpy(copy + 1, bytes, size); /* any address will do for a copy */
    EXPECT(LLMAR_OK, llmar_model_open_memory(copy + 1, size, &params, &model));
    free(copy);
    describe(model);
    llmar_model_free(model);

    params.flags = LLMAR_MODEL_VERIFY | LLMAR_MODEL_BORROW;
    EXPECT(LLMAR_OK, llmar_model_open_memory(bytes, size, &params, &model));
    describe(model);
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    llmar_model_free(model);
    llmar_recognizer_free(recognizer);
    model = NULL;
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_model_open_memory(bytes + 8, size - 8, &params, &model));
    CHECK(model == NULL);
}

static void readers(void)
{
    llmar_model *model = NULL;
    int64_t told = (int64_t)size;
    source sound[] = {{0, size, SIZE_MAX, told, 0}, {0, size, 1000, told, 0}, {0, size, 4096, -1, 0}};
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
        EXPECT(LLMAR_OK, open_source(sound[i], &model));
        describe(model);
        llmar_model_free(model);
    }
    llmar_reader without_size = {.struct_size = sizeof without_size};
    source all = {0, size, SIZE_MAX, 0, 0};
    without_size.user = &all;
    without_size.read = source_read;
    EXPECT(LLMAR_OK, llmar_model_open_reader(&without_size, NULL, &model));
    llmar_model_free(model);

    model = NULL;
    source broken = {0, size, SIZE_MAX, told, 1};
    EXPECT(LLMAR_ERROR_READER, open_source(broken, &model));
    source shorter = {0, size - 1, SIZE_MAX, told, 0}, longer = {0, size, SIZE_MAX, told - 1, 0};
    EXPECT(LLMAR_ERROR_READER, open_source(shorter, &model));
    EXPECT(LLMAR_ERROR_READER, open_source(longer, &model));
    source cut = {0, size / 2, SIZE_MAX, told / 2, 0}, liar = {0, size, SIZE_MAX, INT64_MAX, 0}, none = {0, 0, SIZE_MAX, 0, 0};
    EXPECT(LLMAR_ERROR_FORMAT, open_source(cut, &model));
    EXPECT(LLMAR_ERROR_READER, open_source(liar, &model));
    EXPECT(LLMAR_ERROR_FORMAT, open_source(none, &model));
    CHECK(model == NULL);
}

/* Nothing that comes in as bytes ends the program or the handle's life early: a status, or a model that can be freed. */
static void open_damaged(const unsigned char *data, size_t len, int must_fail)
{
    llmar_model *model = NULL;
    llmar_model_params params = {.struct_size = sizeof params};
    params.flags = LLMAR_MODEL_BORROW;
    llmar_status status = llmar_model_open_memory(data, len, &params, &model);
    CHECK((status == LLMAR_OK) == (model != NULL));
    CHECK(status != LLMAR_ERROR_PANIC && status != LLMAR_ERROR_POISONED);
    CHECK(!must_fail || status != LLMAR_OK);
    llmar_model_free(model);
}

static void damaged(const char *folder)
{
    for (size_t part = 0; part < 64; part++) {
        size_t len = size * part / 64;
        unsigned char *cut = aligned_alloc(64, len / 64 * 64 + 64); /* so that a sanitizer sees reads beyond the end */
        CHECK(cut != NULL);
        unsigned char *data = cut;
        memcpy(data, bytes, len);
        open_damaged(data, len, 1);
        free(cut);
    }
    uint64_t header = 0;
    memcpy(&header, bytes, 8);
    CHECK(header > 8 && header < size);
    for (size_t at = 0; at < 8 + header; at++) {
        unsigned char bit = (unsigned char)(1u << (at % 8));
        bytes[at] ^= bit;
        open_damaged(bytes, size, at < 8);
        bytes[at] ^= bit;
    }

    /* A flipped bit in the tensors is seen by whoever asks for it. */
    char path[1024];
    CHECK(snprintf(path, sizeof path, "%s/damaged-\xc3\xa4.llmar", folder) < (int)sizeof path); /* a name beyond ASCII */
    bytes[size - 3] ^= 4;
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    bytes[size - 3] ^= 4;
    EXPECT(LLMAR_ERROR_CHECKSUM, llmar_model_verify_path(path, NULL));
    llmar_model *model = NULL;
    llmar_model_params params = {.struct_size = sizeof params};
    params.flags = LLMAR_MODEL_VERIFY;
    EXPECT(LLMAR_ERROR_CHECKSUM, llmar_model_open_path(path, &params, &model));
    CHECK(model == NULL);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    read_file(argv[1]);
    llmar_model *model = open_model(argv[1]);
    describe(model);
    llmar_model_free(model);
    model = NULL;
    EXPECT(LLMAR_OK, llmar_model_verify_path(argv[1], NULL));
    EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("/nowhere/at/all.llmar", NULL, &model));
    EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("", NULL, &model));
    EXPECT(LLMAR_ERROR_IO, llmar_model_verify_path("/nowhere/at/all.llmar", NULL));
    CHECK(model == NULL);
    references(argv[1]);
    memory();
    readers();
    damaged(argv[2]);
    free(bytes);
    return 0;
}
