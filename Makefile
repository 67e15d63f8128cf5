# make demo    compare the bundled model with a pruned, a quantised and a distilled copy; writes runs/demo/
# make test    run the tests
# make test-faults
#              kill what writes at every change of the file system, and let two write at once (an hour)
# make test-browser
#              run the tests of the explorer and the tutorials in JupyterLab; needs chromium
# make lint    check style and types
# make docs    make the site in build/site; a dead link or a missing name fails
# make bench   measure speed and memory, also against other packages, and print one table
# make architectures
#              do every operation with tiny models of every architecture, and say what is right (an hour)
# make study-pruning, make study-quantization, make study-distillation, make study-budget, make study-language-models,
# make study-decoder, make study-restore, make study-finetune, make study-output-codes, make study-training,
# make study-taxonomy, make study-noise
#              make the studies in notebooks/studies/ again (up to an hour each)
# make study-real MODEL=FOLDER DATA=FOLDER
#              the study of a real encoder, which is no part of this project (two hours, then several evenings)
# make calibration
#              count again what the reference pages say of intervals and estimates (an hour or two)
# make data    rebuild the bundled corpus and the bundled models (about twenty minutes)
# make figures remake the figures of the README
# make screenshots
#              remake the pictures of the explorer in notebooks/images/; needs chromium
# make lab     open the tutorials in JupyterLab
# make clean   remove the environment, the site and what the demo wrote

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Threads that spin while they wait make each other slow where cores are shared.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-faults test-browser lint docs bench architectures study-pruning study-quantization study-distillation study-budget study-language-models study-decoder study-restore study-finetune study-output-codes study-training study-taxonomy study-noise study-real calibration data figures screenshots lab clean

demo: .venv/installed runs/demo/pruned runs/demo/quantized runs/demo/distilled
	$(BIN)/python -m probes compare base=bundled pruned=runs/demo/pruned quantized=runs/demo/quantized \
		distilled=runs/demo/distilled --corpus bundled --split test --pivot en --baseline base --out runs/demo --overwrite

runs/demo/pruned: .venv/installed data/model/model.safetensors
	rm -rf $@
	$(BIN)/python -m compress prune bundled --sparsity 0.6 --out $@

runs/demo/quantized: .venv/installed data/model/model.safetensors
	rm -rf $@
	$(BIN)/python -m compress quantize bundled --bits 3 --out $@

runs/demo/distilled: .venv/installed data/model/model.safetensors
	rm -rf $@
	$(BIN)/python -m compress distill bundled --layers 2 --corpus bundled --split train --languages en \
		--steps 150 --learning-rate 5e-4 --out $@

# A thread each: two workers of two threads take a third longer.
test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: .venv/installed-test
	$(BIN)/python -m pytest -n 2 -m faults

test-browser: .venv/installed-browser
	$(BIN)/python -m pytest tests/browser

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/installed-docs
	mkdir -p build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file notebooks/mkdocs.yml

# make bench ONLY="similarity pruning" runs these alone, make bench QUICK=1 all of them roughly.
bench: .venv/installed-bench .venv/installed-browser
	$(BIN)/python -W ignore tests/benchmarks $(ONLY) $(if $(QUICK),--quick)

architectures: .venv/installed-test
	$(BIN)/python -W ignore tests/benchmarks/architectures.py $(if $(ONLY),--only $(ONLY))

study-pruning: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/pruning.py

study-quantization: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/quantization.py

study-distillation: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/distillation.py

study-budget: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/budget.py

study-language-models: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/language_models.py

study-decoder: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/decoder.py

study-restore: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/restore.py

study-finetune: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/finetune.py

study-output-codes: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/output_codes.py

study-training: .venv/installed
	$(BIN)/python -W ignore notebooks/studies/training.py $(if $(ONLY),--only "$(ONLY)")

study-taxonomy: .venv/installed-test
	$(BIN)/python -W ignore notebooks/studies/taxonomy.py

# make study-noise ONLY=log_z prints one of its three tables: gradient, log_z, sentences.
study-noise: .venv/installed
	for table in $(or $(ONLY),gradient log_z sentences); do \
		$(BIN)/python -W ignore notebooks/studies/noise.py $$table || exit 1; done

# make study-real ONLY="training-free" makes that part alone, ONLY="Wanda" that method.
study-real: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore notebooks/studies/real_encoder.py --model "$(MODEL)" --data "$(DATA)" \
		$(if $(ONLY),--only "$(ONLY)")

# make calibration ONLY="snr retrieval" counts these alone, ENCODER=folder also on the states of this encoder; RESUME=1
# leaves out what is counted already.
calibration: .venv/installed-test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m calibration $(if $(ONLY),--only $(ONLY)) $(if $(ENCODER),--encoder $(ENCODER)) \
		$(if $(RESUME),--resume)

data: .venv/installed
	$(BIN)/python data/rebuild/corpus.py
	$(BIN)/python data/rebuild/model.py
	$(BIN)/python data/rebuild/decoder.py

figures: demo
	$(BIN)/python -c "import probes; c = probes.Comparison.open('runs/demo'); \
		c.plot_change('retrieval').savefig('notebooks/images/demo_change.png', dpi=90); \
		c.plot('cka').savefig('notebooks/images/demo_cka.png', dpi=90)"

lab: .venv/installed-lab
	$(BIN)/jupyter lab --notebook-dir notebooks

screenshots: .venv/installed-browser demo
	$(BIN)/python -W ignore tests/browser/screenshots.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

.venv/installed-lab: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[lab]"
	touch $@

.venv/installed-browser: .venv/installed-test
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[browser]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

# What the benchmarks measure and are measured against, without what it would bring along.
.venv/installed-bench: tests/benchmarks/peers.txt .venv/installed-test
	$(BIN)/pip install --quiet --no-deps --requirement $<
	touch $@

clean:
	rm -rf .venv build/docs build/site runs/demo
