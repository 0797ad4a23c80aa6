# make          one binary for every machine, bin/trainer: CUDA where there is a driver, the CPU elsewhere
# make cpu      the same without C, without CUDA
# make test     the tests
# make ci       everything that a change must pass (.ci/run)
# make env      prints what go build, go vet, go test and an editor need for the CUDA files: eval "$(make env)"
# make rename MODULE=host/path   moves the module to another name
# make long     the tests that take minutes
# make peers PYTHON=…   round trips through the Python libraries
# make ptx      the PTX of the CUDA kernels, after a change of their sources
# Also: race, test-arm64, test-amx, test-gpu, test-emu, abi, ptx-check, lint, fuzz, clean. TAGS adds build tags: make TAGS="gpu mpi".

# gorgonia.org/cu includes <cuda.h> and links -lcuda. It finds our declarations of the driver's ABI and an empty archive:
# no CUDA toolkit, no driver is needed. The sum makes Go's build cache notice an edited header, which it does not see by
# itself where the header lies outside the package.
ABI         := $(CURDIR)/cuda/abi
ABI_SUM     := $(shell cat $(ABI)/include/*.h cuda/driver/*.h | cksum | cut -d' ' -f1)
GPU_CFLAGS  := -O2 -g -I$(ABI)/include -DCUDA_ABI_SUM=$(ABI_SUM)
GPU_LDFLAGS := -O2 -g -L$(ABI)/lib
GPU         := CGO_ENABLED=1 CGO_CFLAGS="$(GPU_CFLAGS)" CGO_LDFLAGS="$(GPU_LDFLAGS)"
TAGS        ?= gpu

# Packages that start goroutines, or that several goroutines use at once: those that exist of
CONCURRENT := data data/read checkpoints checkpoints/hub nn/backend/host nn/backend/ref nn/backend/cpu nn/graph \
              cuda/ptx train train/dist rank cmd/trainer/app
RACE       := $(patsubst %,./%,$(foreach room,$(CONCURRENT),$(if $(wildcard $(room)/*.go),$(room))))

# Tools, by exact version: built once into bin (go run would build them again under each set of cgo flags)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
FUZZTIME    ?= 10s

# Gorgonia takes the tag cuda for its own: it brings in cuDNN code that does not build.
comma := ,
empty :=
ifneq ($(filter cuda,$(shell echo "$(TAGS) $$(go env GOFLAGS)" | tr "=,'\"" ' ')),)
$(error the build tag cuda belongs to Gorgonia and does not build; this module's tag is gpu)
endif

all:
	$(GPU) go build -trimpath -tags "$(TAGS)" -o bin/trainer ./cmd/trainer

cpu:
	CGO_ENABLED=0 go build -trimpath -tags "$(filter-out gpu gpuemu,$(TAGS))" -o bin/trainer ./cmd/trainer

test:
	go test ./...

# Tests that take minutes: whole training runs against recorded ones, where the reference data is
long:
	RUNG_LONG=1 go test -timeout 120m ./nn/arch ./train ./cmd/...

# What is saved here, opened by Transformers, sentence-transformers and PEFT, and the other way, and training with
# dropout beside theirs: PYTHON has them
peers:
	RUNG_PEERS=$(or $(PYTHON),python3) go test -count=1 -timeout 60m -run 'Peer|Python|PEFT' ./checkpoints ./lora ./rank ./train

# Without the statistics of many runs: minutes here, and what is raced is in the other tests too
race:
	go test -race -short -shuffle=on -skip '^TestAudit$$' $(RACE)

# The kernels of arm64 and training on them, by a cross compiler and qemu. The longest tests are left out: they compare
# with float64 for minutes there, and the conformance suite calls the same kernels.
ARM64   := GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc
EMULATE := -exec 'qemu-aarch64 -L /usr/aarch64-linux-gnu'
test-arm64:
	$(ARM64) go vet ./nn/backend/...
	$(ARM64) go test -short $(EMULATE) -skip '^(TestAttn|TestMatNTPlain|TestTeam)$$' ./nn/backend/cpu
	$(ARM64) go test -short $(EMULATE) -run '^(TestLearns|TestResumeIsExact|TestWorkersChangeNothing)$$' ./train

# The products of AMX on tiles that C emulates: of the processor they need AVX-512-BF16, without which nothing is tested
test-amx:
	go vet -tags amxemu ./nn/backend/cpu
	go test -short -tags amxemu ./nn/backend/cpu
	go test -short -tags amxemu -run '^TestBF16$$' ./train

# -rdynamic, which Go falls back to with some linkers, shows every symbol of ours that is not hidden
test-gpu: bin/staticcheck
	$(GPU) go vet -tags "$(TAGS)" ./...
	$(GPU) bin/staticcheck -tags "$(TAGS)" ./cuda/...
	$(GPU) go test -tags "$(TAGS)" -ldflags=-extldflags=-rdynamic ./cuda/...

# The host's code on the emulator, which runs the committed PTX and checks every access
test-emu: bin/staticcheck
	$(GPU) go vet -tags "$(TAGS) gpuemu" ./cuda/... ./cmd/trainer/...
	$(GPU) bin/staticcheck -tags "$(TAGS) gpuemu" ./cuda/... ./cmd/trainer/...
	$(GPU) GPU_DRIVER=emu go test -short -skip "TestTrains|TestLarge" -tags "$(TAGS) gpuemu" $$($(GPU) go list -tags "$(TAGS) gpuemu" ./cuda/... | grep -v /driver)
	$(GPU) go test -short -run "GPU|Kernels" -tags "$(TAGS) gpuemu" ./cmd/trainer/...

env:
	@echo 'export CGO_ENABLED=1'
	@echo 'export CGO_CFLAGS="$(GPU_CFLAGS)"'
	@echo 'export CGO_LDFLAGS="$(GPU_LDFLAGS)"'
	@echo 'export GOFLAGS="$(strip $(shell go env GOFLAGS) -tags=$(subst $(empty) $(empty),$(comma),$(strip $(TAGS))))"'

# Our declarations against real headers, from the packages that carry them: cuBLASLt's of CUDA 11.8, the oldest that is
# used. Its package is 400 MB of library, so that the header is kept.
abi: bin/abi-cublaslt/nvidia/cublas/include/cublasLt.h
	rm -rf bin/abi && mkdir -p bin/abi
	python3 -m pip download -q --no-deps -d bin/abi nvidia-cuda-runtime-cu12==12.9.79
	python3 -m zipfile -e bin/abi/*.whl bin/abi
	cuda/abi/check.py bin/abi/nvidia/cuda_runtime/include
	cuda/abi/check.py --cublaslt $(addprefix bin/abi-cublaslt/nvidia/,cublas/include cuda_runtime/include cuda_nvcc/include)

bin/abi-cublaslt/nvidia/cublas/include/cublasLt.h:
	rm -rf bin/abi-cublaslt && mkdir -p bin/abi-cublaslt
	python3 -m pip download -q --no-deps -d bin/abi-cublaslt nvidia-cublas-cu11==11.11.3.6 nvidia-cuda-runtime-cu11==11.8.89 nvidia-cuda-nvcc-cu11==11.8.89
	cd bin/abi-cublaslt && for f in *.whl; do python3 -m zipfile -e "$$f" .; done && rm -rf *.whl nvidia/*/lib nvidia/*/bin
	touch $@

# The kernels' PTX from their sources, by the pinned compilers, which need no GPU; ptx-check compares only
PTX_PYTHON := bin/ptx/bin/python
$(PTX_PYTHON): Makefile
	python3 -m venv bin/ptx
	$(PTX_PYTHON) -m pip install -q --no-deps nvidia-cuda-nvrtc-cu11==11.8.89 nvidia-cuda-nvcc-cu11==11.8.89

ptx: $(PTX_PYTHON)
	$(PTX_PYTHON) cuda/kern/ptx.py --write

ptx-check: $(PTX_PYTHON)
	$(PTX_PYTHON) cuda/kern/ptx.py

bin/staticcheck: Makefile
	GOBIN=$(CURDIR)/bin go install $(STATICCHECK)

bin/gofumpt: Makefile
	GOBIN=$(CURDIR)/bin go install $(GOFUMPT)

lint: bin/staticcheck bin/gofumpt
	go vet ./...
	bin/staticcheck ./...
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r bin/gofumpt -l) && \
	if [ -n "$$bad" ]; then echo "not formatted as gofumpt does: $$bad"; exit 1; fi

# Every fuzz test for FUZZTIME
fuzz:
	@git grep -o --untracked -E '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | while IFS=: read -r file func; do \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" || exit 1; \
	done

ci:
	.ci/run

rename:
	@test -n "$(MODULE)" || { echo 'usage: make rename MODULE=host/path'; exit 2; }
	@old=$$(go list -m) && name=$$(echo "$$old" | sed 's/\./\\./g') && go mod edit -module "$(MODULE)" && \
	git ls-files -co --exclude-standard '*.go' '*.md' '*.txtar' | xargs -r sed -i -E \
		-e "s#([\"\` ])$$name/([a-z])#\1$(MODULE)/\2#g" \
		-e "s#^((require|replace)?[[:space:]]*)$$name (v0|=>)#\1$(MODULE) \3#" && \
	git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -w && \
	echo "$$old is now $(MODULE)"

clean:
	rm -rf bin

.PHONY: all cpu test long peers race test-amx test-arm64 test-gpu test-emu env abi ptx ptx-check lint fuzz ci rename clean
