package lora

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseConfig(t *testing.T) {
	c, src, err := parseConfig([]byte(`{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]}`))
	require.NoError(t, err)
	require.Equal(t, Config{Kind: Plain, Rank: 4, Alpha: 8, Targets: []string{"query"}, Bias: BiasNone, Task: TaskUnnamed}, c)
	require.Zero(t, src)

	c, src, err = parseConfig([]byte(`{
		"peft_type": "LORA", "peft_version": "0.99.0", "base_model_name_or_path": "org/m", "revision": "abc", "task_type": "SEQ_CLS",
		"target_modules": ".*query", "exclude_modules": "bert.*", "r": 2, "lora_alpha": 3.5, "lora_dropout": 0.1, "use_rslora": true,
		"rank_pattern": {"a": 1}, "alpha_pattern": {"b": 2.5}, "bias": "all", "modules_to_save": ["classifier", "classifier", "score"],
		"init_lora_weights": "gaussian", "loftq_config": {}, "use_dora": false, "layer_replication": null, "a_new_size": 16, "a_new_switch": false}`))
	require.NoError(t, err)
	require.Equal(t, Source{"org/m", "abc"}, src)
	require.Equal(t, Config{
		Kind: Plain, Rank: 2, Alpha: 3.5, Dropout: .1, UseRSLoRA: true, TargetPattern: ".*query", ExcludePattern: "bert.*",
		RankPattern: map[string]int{"a": 1}, AlphaPattern: map[string]float64{"b": 2.5}, Bias: BiasAll,
		ModulesToSave: []string{"classifier", "score"}, Task: TaskClassify,
	}, c)

	for text, want := range map[string][]int{`3`: {3}, `[1,2]`: {1, 2}, `null`: nil} {
		c, _, err = parseConfig(with(`"layers_to_transform": ` + text))
		require.NoError(t, err)
		require.Equal(t, want, c.Layers)
	}
	for text, want := range map[string][]string{`"layer"`: {"layer"}, `["layer", "h"]`: {"layer", "h"}} {
		c, _, err = parseConfig(with(`"layers_to_transform": 1, "layers_pattern": ` + text))
		require.NoError(t, err)
		require.Equal(t, want, c.LayersPattern)
	}
	c, _, err = parseConfig(with(`"use_dora": true, "init_lora_weights": "pissa"`))
	require.ErrorContains(t, err, "init: pissa does not go with kind dora")
	c, _, err = parseConfig(with(`"use_dora": true`))
	require.NoError(t, err)
	require.Equal(t, DoRA, c.Kind)
	c, src, err = parseConfig([]byte(`{"peft_type": "IA3", "base_model_name_or_path": "b", "task_type": "SEQ_CLS", "target_modules": ["key", "output.dense"],
		"feedforward_modules": ["output.dense"], "exclude_modules": null, "modules_to_save": ["classifier"], "init_ia3_weights": true, "fan_in_fan_out": false,
		"auto_mapping": null, "inference_mode": true, "peft_version": "0.21.2", "revision": null}`))
	require.NoError(t, err)
	require.Equal(t, Source{"b", ""}, src)
	require.Equal(t, Config{Kind: IA3, Targets: []string{"key", "output.dense"}, Feedforward: []string{"output.dense"}, Bias: BiasNone, ModulesToSave: []string{"classifier"}, Task: TaskClassify}, c)
	c, _, err = parseConfig([]byte(`{"peft_type": "IA3", "target_modules": ".*key", "feedforward_modules": "x.*"}`))
	require.NoError(t, err)
	require.Equal(t, "x.*", c.FeedforwardPattern)

	c, _, err = parseConfig([]byte(`{"peft_type": "LORA", "target_modules": "ALL-linear"}`))
	require.NoError(t, err)
	require.Equal(t, []string{AllLinear}, c.Targets)
}

// with is a configuration that can be read, and more.
func with(more string) []byte {
	return []byte(`{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"], ` + more + `}`)
}

func TestParseConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                      "not valid JSON",
		`[]`:                    "not valid JSON",
		`{}`:                    `peft_type is null: only "LORA", "IA3" and`,
		`{"peft_type": "VERA"}`: `peft_type is "VERA": only "LORA", "IA3" and`,
		`{"peft_type": "IA3"}`:  "no targets",
		`{"peft_type": "LORA"}`: "no targets",
		`{"peft_type": "LORA", "target_modules": 7}`: "target_modules is 7",
	} {
		_, _, err := parseConfig([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		`{"peft_type": "IA3", "target_modules": ["key"], "fan_in_fan_out": true}`:            "fan_in_fan_out is true: only plain IA3 is supported",
		`{"peft_type": "IA3", "target_modules": ["key"], "feedforward_modules": ["dense"]}`:  `feedforward "dense" is no target`,
		`{"peft_type": "IA3", "target_modules": ["key"], "ia3_more": true}`:                  "ia3_more is true: the field is not known",
		`{"peft_type": "IA3", "target_modules": ["key"], "r": [4]}`:                          "r is [4]: the field is not known",
		`{"peft_type": "IA3", "target_modules": ["key"], "feedforward_modules": {"a": "b"}}`: `feedforward_modules is {"a":"b"}`,
	} {
		_, _, err := parseConfig([]byte(text))
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "\n")
	}
	for more, want := range map[string]string{
		`"fan_in_fan_out": true`:                "fan_in_fan_out is true",
		`"lora_bias": true`:                     "lora_bias is true",
		`"use_qalora": true`:                    "use_qalora is true",
		`"layer_replication": [[0, 4]]`:         "layer_replication is [[0,4]]",
		`"arrow_config": {"top_k": 2}`:          `arrow_config is {"top_k":2}`,
		`"trainable_token_indices": [1]`:        "trainable_token_indices is [1]",
		`"init_lora_weights": "olora"`:          `init_lora_weights is "olora": an initialisation that changes the base's weights`,
		`"init_lora_weights": "pissa_niter_16"`: `init_lora_weights is "pissa_niter_16"`,
		`"use_better_lora": true`:               "use_better_lora is true: the field is not known",
		`"better_config": {"a": 1}`:             `better_config is {"a":1}: the field is not known`,
		`"r": "four"`:                           `r is "four"`,
		`"r": 4.5`:                              "r is 4.5",
		`"lora_alpha": 1e999`:                   "lora_alpha is 1e999",
		`"rank_pattern": {"query": 0}`:          `rank for "query" is 0, below 1`,
		`"task_type": "CAUSAL_LM"`:              `task "CAUSAL_LM" is none of`,
		`"layers_to_transform": -1`:             "layer -1: layers count from 0",
	} {
		_, _, err := parseConfig(with(more))
		require.ErrorContains(t, err, want, more)
		require.NotContains(t, err.Error(), "\n")
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(string(with(`"bias": "lora_only"`)))
	f.Add(string(with(`"layers_to_transform": [0], "layers_pattern": "layer", "rank_pattern": {"a": 2}, "alpha_pattern": {"b": 1e-3}`)))
	f.Add(`{"peft_type": "LORA", "target_modules": "(.*query)", "exclude_modules": ["a.b"], "modules_to_save": null, "x": "\u00e9"}`)
	f.Add(`{"peft_type": "IA3", "target_modules": ["key", "dense"], "feedforward_modules": ["dense"]}`)
	f.Add(`{"peft_type": "IA3", "target_modules": ".*key", "feedforward_modules": "x.*", "exclude_modules": "a"}`)
	f.Add(string(with(`"use_dora": true`)))
	f.Add(string(with(`"init_lora_weights": "pissa", "use_rslora": true`)))
	f.Add(`{"peft_type": "LORA", "target_modules": "all-linear", "lora_dropout": 1e-9}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, src, err := parseConfig([]byte(text))
		if err != nil {
			return
		}
		// What was read is written, and read again the same.
		out, err := encodeConfig(&c, src)
		require.NoError(t, err)
		d, again, err := parseConfig(out)
		require.NoError(t, err, string(out))
		twice, err := encodeConfig(&d, again)
		require.NoError(t, err)
		require.Equal(t, string(out), string(twice))
		// Patterns from outside match or fail; nothing panics.
		if m, err := newMatcher(&c, c.ModulesToSave); err == nil {
			const path = "bert.encoder.layer.0.attention.self.query"
			m.excluded(path)
			m.size(path)
			for i := range c.Targets {
				_ = m.asked(i, path) && m.inLayers(i, path)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"quary", "query", 1}, {"flaw", "lawn", 2}} {
		require.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
	}
	require.Equal(t, "1,234,567", grouped(1234567))
	require.Equal(t, "12", grouped(12))
	require.Equal(t, "123,456", grouped(123456))
}
