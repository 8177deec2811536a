/*
 * libllmar for C++17: one header over the C ABI (llmar.h), nothing to link but the library itself.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 *   llmar::Model model = llmar::Model::open("utd-mhad-q8.llmar");
 *   llmar::Stream stream = llmar::Stream::create(model);
 *   std::array<llmar::Event, 32> room;
 *   stream.push(body, time_ns, joints);                        // 20 * 3 floats, metres
 *   for (const llmar::Event &event : stream.poll(room)) { ... }
 *
 * Errors.  A call that fails throws llmar::Error, which has the status and the library's words. With LLMAR_NO_EXCEPTIONS defined nothing is
 *   thrown: what returned T returns llmar::Result<T>, what returned void returns llmar::Status, and llmar::last_error has the words; the
 *   header then compiles with -fno-exceptions -fno-rtti. Both forms may meet in one program. The status constants are those of llmar.h.
 * Handles.  Model, Recognizer, Stream and CancelToken move and do not copy; their destructors free. A handle that was moved from is empty:
 *   its calls fail with LLMAR_ERROR_NULL_POINTER. Recognizers and streams keep their model alive.
 * Views.  Span, Clip, Pose and Answer point at what others own, which must stay while they are used. Texts that come back live as long as
 *   their documentation says.
 * Memory.  Stream::push, Stream::try_push and Stream::poll allocate nothing here, unless they fail with an exception; neither does
 *   Recognizer::recognize.
 * Threads.  As in llmar.h: a Model and a CancelToken are for any number of threads at once, a Recognizer or Stream for one at a time;
 *   another meanwhile gets LLMAR_ERROR_IN_USE. No call may be made with a handle while, or after, it is destroyed or moved from.
 * Units.  Metres unless StreamParams::metres_per_unit says otherwise, timestamps in nanoseconds from any zero, probabilities 0 to 1.
 */
#ifndef LLMAR_HPP
#define LLMAR_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef LLMAR_NO_EXCEPTIONS
#include <stdexcept>
#endif

#include <llmar.h>

namespace llmar {
// The two forms have names of their own, so that they can be linked together.
#ifdef LLMAR_NO_EXCEPTIONS
inline namespace nothrow {
#else
inline namespace throwing {
#endif

// --- small types ------------------------------------------------------------------------------------------------------

/// Elements that lie side by side and belong to somebody else.
template <class T> class Span {
public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N> constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    /// Anything with data() and size(): std::vector, std::array, std::string, another Span.
    template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<C &>().data()), T *> &&
                                                sizeof(*std::declval<C &>().data()) == sizeof(T)>>
    constexpr Span(C &from) noexcept : data_(from.data()), size_(from.size())
    {
    }
    /// Of a temporary only for reading: it must outlive the use.
    template <class C, class = std::enable_if_t<std::is_const_v<T> && std::is_convertible_v<decltype(std::declval<const C &>().data()), T *> &&
                                                sizeof(*std::declval<const C &>().data()) == sizeof(T)>,
              class = void>
    constexpr Span(const C &from) noexcept : data_(from.data()), size_(from.size())
    {
    }
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    /// index: below size(), unchecked.
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
    /// The first elements; count: at most size(), unchecked.
    constexpr Span first(std::size_t count) const noexcept { return Span(data_, count); }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Copies what went wrong in this thread's last call that failed, as llmar_last_error, into `room` (cut to fit, with a NUL), and returns a
/// view of it. Never fails.
inline std::string_view last_error(Span<char> room) noexcept
{
    const std::size_t needed = llmar_last_error(room.data(), room.size());
    const std::size_t got = needed < room.size() ? needed : room.size();
    return got == 0 ? std::string_view() : std::string_view(room.data());
}

/// How a call ended: an LLMAR_OK or LLMAR_ERROR_ constant.
class [[nodiscard]] Status {
public:
    constexpr Status() noexcept = default;
    constexpr explicit Status(llmar_status code) noexcept : code_(code) {}
    constexpr bool ok() const noexcept { return code_ == LLMAR_OK; }
    constexpr explicit operator bool() const noexcept { return ok(); }
    constexpr llmar_status code() const noexcept { return code_; }
    /// Short English text, for ever valid.
    std::string_view text() const noexcept { return llmar_status_string(code_); }

private:
    llmar_status code_ = LLMAR_OK;
};

#ifdef LLMAR_NO_EXCEPTIONS

/// A value, or the status that says why there is none.
template <class T> class [[nodiscard]] Result {
public:
    Result(T value) noexcept : value_(std::move(value)) {}
    explicit Result(Status status) noexcept : status_(status) {}
    bool ok() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return ok(); }
    /// LLMAR_OK where there is a value.
    Status status() const noexcept { return status_; }
    /// The value. Only where ok().
    T &operator*() noexcept { return *value_; }
    const T &operator*() const noexcept { return *value_; }
    T *operator->() noexcept { return &*value_; }
    const T *operator->() const noexcept { return &*value_; }
    /// Moves the value out. Only where ok().
    T take() noexcept { return std::move(*value_); }

private:
    std::optional<T> value_;
    Status status_;
};

namespace detail {
template <class T> struct Outcome {
    using type = Result<T>;
};
template <> struct Outcome<void> {
    using type = Status;
};
} // namespace detail

#else

/// A call that failed: what() is the library's text, status() an LLMAR_ERROR_ constant.
class Error : public std::runtime_error {
public:
    Error(llmar_status status, const std::string &text) : std::runtime_error(text), status_(status) {}
    llmar_status status() const noexcept { return status_; }

private:
    llmar_status status_;
};

namespace detail {
template <class T> struct Outcome {
    using type = T;
};

/// Throws what the last call of this thread said.
[[noreturn]] inline void raise(llmar_status status)
{
    std::string text(llmar_last_error(nullptr, 0), '\0');
    llmar_last_error(&text[0], text.size());
    if (!text.empty()) {
        text.pop_back(); // the NUL
    }
    throw Error(status, text.empty() ? std::string(llmar_status_string(status)) : text);
}
} // namespace detail

#endif

/// What a call that can fail returns: T, or with LLMAR_NO_EXCEPTIONS Result<T>, and Status for void.
template <class T> using Returns = typename detail::Outcome<T>::type;

namespace detail {

#ifdef LLMAR_NO_EXCEPTIONS
inline Status done(llmar_status status) noexcept { return Status(status); }
template <class T> Result<T> done(llmar_status status, T &&value)
{
    return status == LLMAR_OK ? Result<T>(std::move(value)) : Result<T>(Status(status));
}
#else
inline void done(llmar_status status)
{
    if (status != LLMAR_OK) {
        raise(status);
    }
}
template <class T> T done(llmar_status status, T &&value)
{
    done(status);
    return std::move(value);
}
#endif

template <class C> constexpr std::uint32_t size32() noexcept { return static_cast<std::uint32_t>(sizeof(C)); }

/// A struct of llmar.h with struct_size set and zero, the default, in every other field.
template <class C> struct Sized : C {
    Sized() noexcept : C() { this->struct_size = size32<C>(); }
};

/// The ABI that the loaded library has is one that this header's programs work with.
inline bool abi_fits() noexcept
{
    const std::uint32_t loaded = llmar_abi_version();
    return loaded >> 16 == LLMAR_ABI_MAJOR && (loaded & 0xffffU) >= LLMAR_ABI_MINOR;
}

/// Frees a handle of llmar.h.
struct Free {
    void operator()(llmar_model *handle) const noexcept { llmar_model_free(handle); }
    void operator()(llmar_recognizer *handle) const noexcept { llmar_recognizer_free(handle); }
    void operator()(llmar_stream *handle) const noexcept { llmar_stream_free(handle); }
    void operator()(llmar_cancel *handle) const noexcept { llmar_cancel_free(handle); }
};
template <class C> using Handle = std::unique_ptr<C, Free>;

template <class C> std::vector<const char *> pointers(const C &texts)
{
    std::vector<const char *> out;
    out.reserve(texts.size());
    for (const auto &text : texts) {
        if constexpr (std::is_pointer_v<std::decay_t<decltype(text)>>) {
            out.push_back(text);
        } else {
            out.push_back(text.c_str());
        }
    }
    return out;
}

} // namespace detail

/// Settings, with the fields of the struct in llmar.h, each 0 for its default.
using ModelParams = detail::Sized<llmar_model_params>;
using RecognizerParams = detail::Sized<llmar_recognizer_params>;
using StreamParams = detail::Sized<llmar_stream_params>;
/// What a model is, with the fields of llmar_model_info.
using ModelInfo = detail::Sized<llmar_model_info>;
/// Counters and latencies, with the fields of llmar_stream_stats.
using StreamStats = detail::Sized<llmar_stream_stats>;
/// Label index, exact log probability, calibrated probability.
using LabelScore = llmar_label_score;

/// Version of the loaded library, "0.1.0". For ever valid.
inline std::string_view version() noexcept { return llmar_version_string(); }

/// Whether programs of this header may call the loaded library. Model::open asks it first, and fails with LLMAR_ERROR_UNSUPPORTED.
inline bool abi_fits() noexcept { return detail::abi_fits(); }

/// Stops calls from another thread. Any number of threads may use it at once.
class CancelToken {
public:
    /// A token that is not raised.
    static Returns<CancelToken> create()
    {
        llmar_cancel *raw = nullptr;
        const llmar_status status = llmar_cancel_create(&raw);
        return detail::done(status, CancelToken(raw));
    }
    /// Calls that were given this token, and later ones until clear(), fail with LLMAR_ERROR_CANCELLED.
    Returns<void> request() const { return detail::done(llmar_cancel_request(handle_.get())); }
    Returns<void> clear() const { return detail::done(llmar_cancel_clear(handle_.get())); }
    const llmar_cancel *get() const noexcept { return handle_.get(); }

private:
    explicit CancelToken(llmar_cancel *raw) noexcept : handle_(raw) {}
    detail::Handle<llmar_cancel> handle_;
};

/// Limits of one call; made where it is called: `recognizer.recognize(clip, room, llmar::Limits(std::chrono::milliseconds(50)))`.
class Limits {
public:
    /// None.
    Limits() noexcept = default;
    /// The call fails with LLMAR_ERROR_DEADLINE_EXCEEDED so long after it began. A time of zero or less: the shortest there is.
    explicit Limits(std::chrono::nanoseconds deadline, const CancelToken *cancel = nullptr) noexcept
    {
        c_.deadline_ns = deadline.count() > 0 ? static_cast<std::uint64_t>(deadline.count()) : 1U;
        c_.cancel = cancel == nullptr ? nullptr : cancel->get();
    }
    /// The call fails with LLMAR_ERROR_CANCELLED when the token is raised. The token must live until it returns.
    explicit Limits(const CancelToken &cancel) noexcept { c_.cancel = cancel.get(); }
    const llmar_call_params *get() const noexcept { return &c_; }

private:
    detail::Sized<llmar_call_params> c_;
};

// --- models -----------------------------------------------------------------------------------------------------------

/// An opened checkpoint, shared by recognizers and streams of any thread.
class Model {
public:
    /// Maps a .llmar file. path: UTF-8.
    ///
    /// Threads: any. Errors: those of llmar_model_open_path; LLMAR_ERROR_UNSUPPORTED for a library of another ABI.
    static Returns<Model> open(const std::string &path, const ModelParams &params = ModelParams())
    {
        return opened([&](llmar_model **out) { return llmar_model_open_path(path.c_str(), &params, out); });
    }

    /// Opens a checkpoint in memory, which is copied unless params.flags has LLMAR_MODEL_BORROW.
    ///
    /// Threads: any. Errors: those of llmar_model_open_memory; LLMAR_ERROR_UNSUPPORTED for a library of another ABI.
    static Returns<Model> open_memory(Span<const std::uint8_t> bytes, const ModelParams &params = ModelParams())
    {
        return opened([&](llmar_model **out) { return llmar_model_open_memory(bytes.data(), bytes.size(), &params, out); });
    }

    /// Opens a checkpoint that the caller's functions read.
    ///
    /// Threads: any. Errors: those of llmar_model_open_reader; LLMAR_ERROR_UNSUPPORTED for a library of another ABI.
    static Returns<Model> open_reader(const llmar_reader &reader, const ModelParams &params = ModelParams())
    {
        return opened([&](llmar_model **out) { return llmar_model_open_reader(&reader, &params, out); });
    }

    /// Checks a .llmar file completely, its SHA-256 included. Errors: those of llmar_model_verify_path.
    static Returns<void> verify(const std::string &path, const ModelParams &params = ModelParams())
    {
        return detail::done(llmar_model_verify_path(path.c_str(), &params));
    }

    /// Threads: any, at once.
    Returns<ModelInfo> info() const
    {
        ModelInfo info;
        const llmar_status status = llmar_model_get_info(handle_.get(), &info);
        return detail::done(status, std::move(info));
    }

    /// Number of labels that it was trained for. Threads: any, at once.
    Returns<std::size_t> label_count() const
    {
        std::size_t count = 0;
        const llmar_status status = llmar_model_label_count(handle_.get(), &count);
        return detail::done(status, std::move(count));
    }

    /// Text of a label; lives as long as the model, its recognizers and streams. index: below label_count(). Threads: any, at once.
    ///
    /// Errors: LLMAR_ERROR_INVALID_ARGUMENT.
    Returns<std::string_view> label(std::size_t index) const
    {
        const char *text = "";
        const llmar_status status = llmar_model_label(handle_.get(), index, &text);
        return detail::done(status, std::string_view(text));
    }

    /// A second handle of the same model, for an owner of its own. Threads: any, at once.
    Returns<Model> share() const
    {
        const llmar_status status = llmar_model_retain(handle_.get());
        return detail::done(status, Model(status == LLMAR_OK ? handle_.get() : nullptr));
    }

    /// For functions of llmar.h.
    llmar_model *get() const noexcept { return handle_.get(); }

private:
    explicit Model(llmar_model *raw) noexcept : handle_(raw) {}

    template <class F> static Returns<Model> opened(F open)
    {
        if (!abi_fits()) {
#ifdef LLMAR_NO_EXCEPTIONS
            return Result<Model>(Status(LLMAR_ERROR_UNSUPPORTED));
#else
            throw Error(LLMAR_ERROR_UNSUPPORTED, "built for ABI " + std::to_string(LLMAR_ABI_MAJOR) + "." + std::to_string(LLMAR_ABI_MINOR) +
                                                     ", libllmar " + std::string(version()) + " is of another");
#endif
        }
        llmar_model *raw = nullptr;
        const llmar_status status = open(&raw);
        return detail::done(status, Model(raw));
    }

    detail::Handle<llmar_model> handle_;
};

// --- clips ------------------------------------------------------------------------------------------------------------

/// A view of a clip: joints[((t * persons + m) * joint_count + v) * coords + c], NaN where a joint was not seen. The public fields of
/// llmar_clip can be set as well; layout is NUL-terminated.
struct Clip : detail::Sized<llmar_clip> {
    /// joints: frames * persons * joint_count * coords values. A view of another size is refused with
    /// LLMAR_ERROR_INVALID_ARGUMENT when it is used.
    /// coords: 3 (metres) or 2 (pixels). fps: frames a second, 0 if unknown.
    Clip(Span<const float> values, std::size_t frame_count, std::size_t person_count, std::size_t joints_each, const char *layout_name,
         float frames_a_second = 0.0F, std::uint32_t coordinates = 3) noexcept
    {
        coords = coordinates;
        joints = values.data();
        frames = frame_count;
        persons = person_count;
        layout = layout_name;
        fps = frames_a_second;
        // Without overflow: each factor must divide what is left.
        std::size_t left = values.size();
        bool fits = true;
        for (const std::size_t factor : {frame_count, person_count, joints_each, static_cast<std::size_t>(coordinates)}) {
            fits = fits && factor > 0 && left % factor == 0;
            left = fits ? left / factor : 0;
        }
        joint_count = fits && left == 1 ? joints_each : 0;
    }

    /// Times of the frames in nanoseconds, strictly increasing, instead of a rate. A wrong number of them is refused as well.
    Clip &at(Span<const std::uint64_t> times) noexcept
    {
        timestamps_ns = times.data();
        fps = 0.0F;
        joint_count = times.size() == frames ? joint_count : 0;
        return *this;
    }

    /// frames * persons * joint_count bytes, 0 for a joint that is not to be believed. A wrong number of them is refused as well.
    Clip &with_valid(Span<const std::uint8_t> flags) noexcept
    {
        valid = flags.data();
        joint_count = joint_count > 0 && flags.size() == frames * persons * joint_count ? joint_count : 0;
        return *this;
    }
};
static_assert(sizeof(Clip) == sizeof(llmar_clip), "an array of Clip is one of llmar_clip");

/// What was recognised; a view into Answers.
class Answer {
public:
    explicit Answer(const llmar_recognition &c) noexcept : c_(&c) {}
    /// The best probability is below the threshold.
    bool unknown() const noexcept { return c_->unknown != 0; }
    /// Best labels, best first.
    Span<const LabelScore> top() const noexcept { return Span<const LabelScore>(c_->top, c_->top_count); }
    /// Action tokens, where Answers has room for them.
    Span<const std::uint16_t> tokens() const noexcept { return Span<const std::uint16_t>(c_->tokens, c_->token_count); }
    /// Share of the joints that were missing, 0 to 1.
    float missing() const noexcept { return c_->missing; }
    /// Wall times of the whole batch.
    std::chrono::nanoseconds tokenize_time() const noexcept { return time(c_->tokenize_ns); }
    std::chrono::nanoseconds prompt_time() const noexcept { return time(c_->prompt_ns); }
    std::chrono::nanoseconds label_time() const noexcept { return time(c_->label_ns); }
    const llmar_recognition &c() const noexcept { return *c_; }

private:
    static std::chrono::nanoseconds time(std::uint64_t ns) noexcept { return std::chrono::nanoseconds(static_cast<std::int64_t>(ns)); }
    const llmar_recognition *c_;
};

/// Room for answers, allocated once and used again by every call.
class Answers {
public:
    /// top: labels of each; tokens: action tokens of each, at least ModelInfo::token_count, or 0 for none.
    explicit Answers(std::size_t count = 1, std::size_t top = 5, std::size_t tokens = 0)
        : results_(count), top_(count * top), tokens_(count * tokens), each_top_(top), each_tokens_(tokens)
    {
    }
    std::size_t size() const noexcept { return results_.size(); }
    /// index: below size(), unchecked.
    Answer operator[](std::size_t index) const noexcept { return Answer(results_[index]); }
    /// The structs, their buffers in place.
    Span<llmar_recognition> prepare() noexcept
    {
        for (std::size_t i = 0; i < results_.size(); i++) {
            results_[i].struct_size = detail::size32<llmar_recognition>();
            results_[i].top = each_top_ == 0 ? nullptr : &top_[i * each_top_];
            results_[i].top_capacity = each_top_;
            results_[i].tokens = each_tokens_ == 0 ? nullptr : &tokens_[i * each_tokens_];
            results_[i].token_capacity = each_tokens_;
        }
        return Span<llmar_recognition>(results_.data(), results_.size());
    }

private:
    std::vector<llmar_recognition> results_;
    std::vector<LabelScore> top_;
    std::vector<std::uint16_t> tokens_;
    std::size_t each_top_, each_tokens_;
};

/// Recognizes clips. One thread at a time.
class Recognizer {
public:
    /// Threads: any. Errors: those of llmar_recognizer_create.
    static Returns<Recognizer> create(const Model &model, const RecognizerParams &params = RecognizerParams())
    {
        llmar_recognizer *raw = nullptr;
        const llmar_status status = llmar_recognizer_create(model.get(), &params, &raw);
        return detail::done(status, Recognizer(raw));
    }

    /// Recognizes one clip; the answer lies in the first place of `room`, which must have one, and is as before where the call fails.
    ///
    /// Errors: those of llmar_recognize_clip; LLMAR_ERROR_BUFFER_TOO_SMALL (room).
    Returns<Answer> recognize(const llmar_clip &clip, Answers &room, const Limits &limits = Limits())
    {
        const Span<llmar_recognition> results = room.prepare();
        if (results.empty()) {
            return no_room<Answer>();
        }
        const llmar_status status = llmar_recognize_clip(handle_.get(), &clip, limits.get(), results.data());
        return detail::done(status, Answer(results[0]));
    }

    /// Recognizes clips together, with the same answers as one by one; `room` has at least as many places. One bad clip fails the call.
    ///
    /// Errors: those of llmar_recognize_batch; LLMAR_ERROR_BUFFER_TOO_SMALL (room).
    Returns<void> recognize(Span<const Clip> clips, Answers &room, const Limits &limits = Limits())
    {
        const Span<llmar_recognition> results = room.prepare();
        if (results.size() < clips.size()) {
            return no_room<void>();
        }
        return detail::done(llmar_recognize_batch(handle_.get(), clips.data(), clips.size(), limits.get(), results.data()));
    }

    /// Turns a clip into its action tokens. room: at least ModelInfo::token_count. missing: receives the share of missing joints, or nullptr.
    ///
    /// Errors: those of llmar_tokenize_clip.
    Returns<Span<std::uint16_t>> tokenize(const llmar_clip &clip, Span<std::uint16_t> room, float *missing = nullptr,
                                          const Limits &limits = Limits())
    {
        std::size_t count = 0;
        const llmar_status status = llmar_tokenize_clip(handle_.get(), &clip, limits.get(), room.data(), room.size(), missing, &count);
        return detail::done(status, room.first(count));
    }

    /// Replaces the labels to choose from. texts: a container of std::string or const char *, none empty, none twice.
    ///
    /// Errors: those of llmar_recognizer_set_labels; the labels then stay.
    template <class Texts> Returns<void> set_labels(const Texts &texts)
    {
        const std::vector<const char *> list = detail::pointers(texts);
        // A list without texts is not the same as none.
        static const char *const nothing = nullptr;
        return detail::done(llmar_recognizer_set_labels(handle_.get(), list.empty() ? &nothing : list.data(), list.size()));
    }

    /// Back to the model's own labels.
    Returns<void> reset_labels() { return detail::done(llmar_recognizer_set_labels(handle_.get(), nullptr, 0)); }

    /// Takes out of later answers what each label gets whatever is shown, measured on some dozens of clips of other actions. Until the labels are replaced.
    ///
    /// Errors: those of llmar_recognizer_balance; what was before then stays.
    Returns<void> balance(Span<const Clip> others, const Limits &limits = Limits())
    {
        // A list without clips is not the same as none.
        static const llmar_clip nothing = {};
        return detail::done(llmar_recognizer_balance(handle_.get(), others.empty() ? &nothing : others.data(), others.size(), limits.get()));
    }

    /// No longer.
    Returns<void> reset_balance() { return detail::done(llmar_recognizer_balance(handle_.get(), nullptr, 0, nullptr)); }

    llmar_recognizer *get() const noexcept { return handle_.get(); }

private:
    explicit Recognizer(llmar_recognizer *raw) noexcept : handle_(raw) {}

    template <class T> static Returns<T> no_room()
    {
#ifdef LLMAR_NO_EXCEPTIONS
        return Returns<T>(Status(LLMAR_ERROR_BUFFER_TOO_SMALL));
#else
        throw Error(LLMAR_ERROR_BUFFER_TOO_SMALL, "room: fewer places than clips");
#endif
    }

    detail::Handle<llmar_recognizer> handle_;
};

// --- streams ----------------------------------------------------------------------------------------------------------

/// What an event is about; the numbers are the LLMAR_EVENT_ constants, and later versions may add some.
enum class EventKind : std::uint32_t {
    decision = LLMAR_EVENT_DECISION,
    begin = LLMAR_EVENT_BEGIN,
    end = LLMAR_EVENT_END,
    forgotten = LLMAR_EVENT_FORGOTTEN
};

/// Whether a label may be named.
enum class LabelState : std::uint32_t {
    allowed = LLMAR_LABEL_ALLOWED,
    denied = LLMAR_LABEL_DENIED,
    not_observable = LLMAR_LABEL_NOT_OBSERVABLE
};

/// What a stream tells; room for one is simply Event(). Times are those of the caller's frames, in nanoseconds.
class Event {
public:
    Event() noexcept = default;
    EventKind kind() const noexcept { return static_cast<EventKind>(c_.kind); }
    /// Whom it is about.
    std::uint64_t body() const noexcept { return c_.body; }
    /// The newest moment that it knows of.
    std::uint64_t time_ns() const noexcept { return c_.time_ns; }
    /// Decision: beginning of the window that was read. Begin and end: when the action began.
    std::uint64_t start_ns() const noexcept { return c_.start_ns; }
    /// End: when the action ended. Otherwise time_ns().
    std::uint64_t end_ns() const noexcept { return c_.end_ns; }
    /// Decision: the best label. Begin and end: the action. Nothing: none.
    std::optional<std::uint32_t> label() const noexcept
    {
        return c_.label == LLMAR_NO_LABEL ? std::nullopt : std::optional<std::uint32_t>(c_.label);
    }
    /// The label's smoothed probability; of an end the largest that it reached.
    float probability() const noexcept { return c_.probability; }
    /// Decision: the best probability is below the threshold.
    bool unknown() const noexcept { return c_.unknown != 0; }
    /// Decision: the best label says that nothing happens.
    bool idle() const noexcept { return c_.idle != 0; }
    /// Decision: best labels, best first.
    Span<const LabelScore> top() const noexcept { return Span<const LabelScore>(c_.top, c_.top_count); }
    /// Decision: action tokens read.
    std::uint32_t tokens() const noexcept { return c_.tokens; }
    /// Decision: share of the joints, over the window, that were missing, 0 to 1.
    float missing() const noexcept { return c_.missing; }
    /// Decision: whether a joint of the model was not seen in the whole window. joint: below 256, others were seen.
    bool joint_missing(std::size_t joint) const noexcept { return joint < 256 && (c_.missing_joints[joint / 64] >> (joint % 64) & 1U) != 0; }
    /// Decision: from the push of the newest frame that it needed until it was there.
    std::chrono::nanoseconds latency() const noexcept { return std::chrono::nanoseconds(static_cast<std::int64_t>(c_.latency_ns)); }
    const llmar_event &c() const noexcept { return c_; }

private:
    friend class Stream;
    detail::Sized<llmar_event> c_;
};
static_assert(sizeof(Event) == sizeof(llmar_event), "an array of Event is one of llmar_event");

/// A view of one frame of one body, made by Stream::pose.
struct Pose : detail::Sized<llmar_pose> {
    /// joint_count floats, compared with StreamParams::min_confidence. A wrong number of them is refused as LLMAR_ERROR_SHAPE.
    Pose &with_confidence(Span<const float> numbers) noexcept
    {
        confidence = numbers.data();
        joint_count = numbers.size() == joint_count ? joint_count : 0;
        return *this;
    }
    /// joint_count bytes, 0 for a joint that was not seen. A wrong number of them is refused as LLMAR_ERROR_SHAPE.
    Pose &with_valid(Span<const std::uint8_t> flags) noexcept
    {
        valid = flags.data();
        joint_count = flags.size() == joint_count ? joint_count : 0;
        return *this;
    }

private:
    friend class Stream;
    Pose() noexcept = default;
};
static_assert(sizeof(Pose) == sizeof(llmar_pose), "an array of Pose is one of llmar_pose");

/// Follows bodies frame by frame. One thread at a time.
class Stream {
public:
    /// Allocates all that the stream will need. Threads: any. Errors: those of llmar_stream_create.
    static Returns<Stream> create(const Model &model, const StreamParams &params = StreamParams())
    {
        ModelInfo info;
        llmar_stream *raw = nullptr;
        llmar_status status = llmar_model_get_info(model.get(), &info);
        if (status == LLMAR_OK) {
            status = llmar_stream_create(model.get(), &params, &raw);
        }
        return detail::done(status, Stream(raw, info.coords));
    }

    /// Coordinates of a joint, 2 or 3.
    std::uint32_t coords() const noexcept { return coords_; }

    /// A frame of a body. body: any number that stays the same for it; time_ns: later than its frame before; joints: V * coords() floats in
    /// the axes and units of the stream, NaN where a joint was not seen. A view of another size is refused as LLMAR_ERROR_SHAPE when it is pushed.
    Pose pose(std::uint64_t body, std::uint64_t time_ns, Span<const float> joints) const noexcept
    {
        Pose pose;
        pose.body = body;
        pose.time_ns = time_ns;
        pose.joints = joints.data();
        const bool fits = coords_ > 0 && joints.size() % coords_ == 0 && joints.size() / coords_ <= 0xffffU;
        pose.joint_count = fits ? static_cast<std::uint32_t>(joints.size() / coords_) : 0U;
        return pose;
    }

    /// Takes one frame. Never waits for an update, and allocates nothing.
    ///
    /// Errors: those of llmar_stream_push; the stream is then as before.
    Returns<void> push(std::uint64_t body, std::uint64_t time_ns, Span<const float> joints)
    {
        const Pose one = pose(body, time_ns, joints);
        return detail::done(llmar_stream_push(handle_.get(), &one, 1, nullptr));
    }

    /// Takes frames. One that is refused is passed over; the error is that of the first.
    Returns<void> push(Span<const Pose> poses) { return detail::done(llmar_stream_push(handle_.get(), poses.data(), poses.size(), nullptr)); }

    /// As push, without an exception in either form of this header: the status of the first frame that was refused. statuses: empty, or a
    /// place for each frame's own; fewer places than frames: LLMAR_ERROR_BUFFER_TOO_SMALL, and nothing is taken.
    Status try_push(Span<const Pose> poses, Span<llmar_status> statuses = {}) noexcept
    {
        if (!statuses.empty() && statuses.size() < poses.size()) {
            return Status(LLMAR_ERROR_BUFFER_TOO_SMALL);
        }
        return Status(llmar_stream_push(handle_.get(), poses.data(), poses.size(), statuses.data()));
    }

    /// Takes events, oldest first, into `room`, and returns those that it holds now; fewer than room: no more for now. Without a worker this
    /// makes the decisions that are due. Allocates nothing.
    ///
    /// Errors: those of llmar_stream_poll; no event is lost.
    Returns<Span<Event>> poll(Span<Event> room, const Limits &limits = Limits())
    {
        std::size_t count = 0;
        llmar_event *first = nullptr;
        if (!room.empty()) {
            first = &room[0].c_;
            first->struct_size = detail::size32<llmar_event>();
        }
        const llmar_status status = llmar_stream_poll(handle_.get(), limits.get(), first, room.size(), &count);
        return detail::done(status, room.first(count));
    }

    /// Says what time it is when nobody is seen. Errors: LLMAR_ERROR_INVALID_ARGUMENT for a time before the newest frame.
    Returns<void> advance(std::uint64_t time_ns) { return detail::done(llmar_stream_advance(handle_.get(), time_ns)); }

    /// The end of the input: makes the decisions that are not due yet, and ends actions. Their events come with the next polls.
    Returns<void> flush() { return detail::done(llmar_stream_flush(handle_.get())); }

    /// With a worker: waits until all that was pushed has been worked on. Errors: those of llmar_stream_wait.
    Returns<void> wait(const Limits &limits = Limits()) { return detail::done(llmar_stream_wait(handle_.get(), limits.get())); }

    /// Forgets all bodies, frames and events.
    Returns<void> reset() { return detail::done(llmar_stream_reset(handle_.get())); }

    /// Forgets a body. Errors: LLMAR_ERROR_UNKNOWN_BODY, LLMAR_ERROR_QUEUE_FULL.
    Returns<void> remove_body(std::uint64_t body) { return detail::done(llmar_stream_remove_body(handle_.get(), body)); }

    Returns<StreamStats> stats()
    {
        StreamStats stats;
        const llmar_status status = llmar_stream_get_stats(handle_.get(), &stats);
        return detail::done(status, std::move(stats));
    }

    Returns<void> reset_stats() { return detail::done(llmar_stream_reset_stats(handle_.get())); }

    /// Writes everything known of all bodies into `room`, and returns what it filled of it.
    ///
    /// Errors: LLMAR_ERROR_BUFFER_TOO_SMALL (state_size() says how much is needed), LLMAR_ERROR_QUEUE_FULL while frames wait.
    Returns<Span<std::uint8_t>> save(Span<std::uint8_t> room)
    {
        std::size_t size = 0;
        llmar_status status = llmar_stream_save(handle_.get(), room.data(), room.size(), &size);
        if (status == LLMAR_OK && size > room.size()) { // no room at all only asks for the size
            status = LLMAR_ERROR_BUFFER_TOO_SMALL;
        }
        return detail::done(status, room.first(status == LLMAR_OK ? size : 0));
    }

    /// Bytes that save() needs now. Errors: LLMAR_ERROR_QUEUE_FULL while frames wait.
    Returns<std::size_t> state_size()
    {
        std::size_t size = 0;
        const llmar_status status = llmar_stream_save(handle_.get(), nullptr, 0, &size);
        return detail::done(status, std::move(size));
    }

    /// Goes on from a state. Errors: LLMAR_ERROR_FOREIGN_STATE, LLMAR_ERROR_FORMAT.
    Returns<void> load(Span<const std::uint8_t> state)
    {
        static const std::uint8_t nothing = 0; // no bytes are damaged ones, not a missing pointer
        return detail::done(llmar_stream_load(handle_.get(), state.empty() ? &nothing : state.data(), state.size()));
    }

    /// As Recognizer::set_labels; a filter is lifted, and actions that go on are dropped without an event.
    template <class Texts> Returns<void> set_labels(const Texts &texts)
    {
        const std::vector<const char *> list = detail::pointers(texts);
        static const char *const nothing = nullptr;
        return detail::done(llmar_stream_set_labels(handle_.get(), list.empty() ? &nothing : list.data(), list.size()));
    }

    /// Back to the model's own labels.
    Returns<void> reset_labels() { return detail::done(llmar_stream_set_labels(handle_.get(), nullptr, 0)); }

    /// Names only labels whose byte is not 0; probabilities are then over those alone. allowed: one byte a label.
    ///
    /// Errors: LLMAR_ERROR_SHAPE, LLMAR_ERROR_INVALID_ARGUMENT when none would be left; the filter then stays.
    Returns<void> filter_labels(Span<const std::uint8_t> allowed)
    {
        static const std::uint8_t nothing = 0; // no bytes are not the same as no filter
        return detail::done(llmar_stream_filter_labels(handle_.get(), allowed.empty() ? &nothing : allowed.data(), allowed.size()));
    }

    /// All labels may be named again.
    Returns<void> lift_filter() { return detail::done(llmar_stream_filter_labels(handle_.get(), nullptr, 0)); }

    /// Whether a label may be named. Errors: LLMAR_ERROR_INVALID_ARGUMENT (label).
    Returns<LabelState> label_state(std::uint32_t label)
    {
        std::uint32_t state = 0;
        const llmar_status status = llmar_stream_label_state(handle_.get(), label, &state);
        return detail::done(status, static_cast<LabelState>(state));
    }

    llmar_stream *get() const noexcept { return handle_.get(); }

private:
    Stream(llmar_stream *raw, std::uint32_t coords) noexcept : handle_(raw), coords_(coords) {}
    detail::Handle<llmar_stream> handle_;
    std::uint32_t coords_;
};

// --- layouts and messages ---------------------------------------------------------------------------------------------

/// Number of known layouts. Threads: any, at once, as all that follow.
inline Returns<std::size_t> layout_count()
{
    std::size_t count = 0;
    const llmar_status status = llmar_layout_count(&count);
    return detail::done(status, std::move(count));
}

/// Name of a layout, for ever valid. index: below layout_count().
inline Returns<std::string_view> layout_name(std::size_t index)
{
    const char *text = "";
    const llmar_status status = llmar_layout_name(index, &text);
    return detail::done(status, std::string_view(text));
}

/// Number of joints of a layout. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT.
inline Returns<std::size_t> joint_count(const char *layout)
{
    std::size_t count = 0;
    const llmar_status status = llmar_layout_joint_count(layout, &count);
    return detail::done(status, std::move(count));
}

/// Name of a joint of a layout, for ever valid. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (joint).
inline Returns<std::string_view> joint_name(const char *layout, std::size_t joint)
{
    const char *text = "";
    const llmar_status status = llmar_layout_joint_name(layout, joint, &text);
    return detail::done(status, std::string_view(text));
}

/// Makes a layout known to the whole process. joints: a container of std::string or const char *, in the order in which frames hold them.
///
/// Errors: those of llmar_layout_register.
template <class Texts> Returns<void> register_layout(const char *name, const Texts &joints)
{
    const std::vector<const char *> list = detail::pointers(joints);
    return detail::done(llmar_layout_register(name, list.data(), list.size()));
}

/// Sends the library's messages, up to `max_level` (an LLMAR_LOG_ constant), to `receive(level, text)`, on the thread that has something to
/// say. `receive` must live until the next set_log or clear_log has returned; what it throws is dropped.
///
/// Errors: LLMAR_ERROR_INVALID_ENUM (level), LLMAR_ERROR_IN_USE from inside a receiver.
template <class F> Returns<void> set_log(F &receive, llmar_log_level max_level = LLMAR_LOG_INFO)
{
    const llmar_log_fn forward = [](void *user, llmar_log_level level, const char *message) {
#ifdef LLMAR_NO_EXCEPTIONS
        (*static_cast<F *>(user))(level, std::string_view(message));
#else
        try {
            (*static_cast<F *>(user))(level, std::string_view(message));
        } catch (...) { // nothing may be thrown through the library
        }
#endif
    };
    return detail::done(llmar_set_log(forward, static_cast<void *>(std::addressof(receive)), max_level));
}

/// No more messages: when this returns, the receiver is not running.
inline Returns<void> clear_log() { return detail::done(llmar_set_log(nullptr, nullptr, 0)); }

} // inline namespace
} // namespace llmar

#endif
