package lora

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// peftVersion is the release of PEFT whose files are read and written.
const peftVersion = "0.21.2"

// A Source names the base model of an adapter: a hub id or a path, and a revision of it ("" for none).
type Source struct{ Name, Revision string }

// off are the fields of adapter_config.json that switch on what is not supported: each must be null,
// false or empty. PEFT writes all of them.
var off = []string{
	"alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias", "megatron_config",
	"monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
	"velora_config", "fan_in_fan_out",
}

// idle are fields that change nothing of what a saved adapter computes: how it was initialised, or
// settings of what is off.
var idle = []string{
	"auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "inference_mode", "loftq_config",
	"lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "runtime_config",
}

// inits are the initialisations that leave the base's weights as they are: after training there is no
// difference between them. PEFT repeats "pissa" when it opens the adapter, and so do we. The others ("olora", "corda",
// "loftq" ...) change the base in ways that are not known here.
var inits = []string{"true", "false", "null", `"gaussian"`, `"eva"`, `"orthogonal"`, `"pissa"`}

// fields reads a JSON object field by field.
type fields struct {
	raw  map[string]json.RawMessage
	read map[string]bool
	err  error
}

// get decodes a field into v, which keeps its value where the field is absent or null.
func (f *fields) get(name string, v any) {
	f.read[name] = true
	raw, ok := f.raw[name]
	if !ok || string(raw) == "null" || f.err != nil {
		return
	}
	if err := json.Unmarshal(raw, v); err != nil {
		f.fail("%s is %s: %w", name, brief(raw), err)
	}
}

func (f *fields) fail(format string, a ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, a...)
	}
}

// names decodes a list of names, or one string.
func (f *fields) names(name string) (list []string, one string) {
	if raw := f.raw[name]; len(raw) > 0 && raw[0] == '"' {
		f.get(name, &one)
		return nil, one
	}
	f.get(name, &list)
	return list, ""
}

// brief is the beginning of a value, for messages.
func brief(raw json.RawMessage) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}

// empty reports a value that switches nothing on.
func empty(raw json.RawMessage) bool {
	return slices.Contains([]string{"", "null", "false", "[]", "{}", `""`}, string(raw))
}

// parseConfig reads an adapter_config.json.
func parseConfig(data []byte) (Config, Source, error) {
	f := &fields{read: map[string]bool{}}
	var c Config
	var src Source
	if err := json.Unmarshal(data, &f.raw); err != nil {
		return c, src, fmt.Errorf("not valid JSON: %w", err)
	}
	for name, raw := range f.raw {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return c, src, fmt.Errorf("%s: %w", name, err)
		}
		f.raw[name] = b.Bytes()
	}
	f.get("base_model_name_or_path", &src.Name)
	f.get("revision", &src.Revision)
	if string(f.raw["peft_type"]) == `"IA3"` {
		c = f.ia3()
	} else {
		c = f.lora()
	}
	f.rest()
	if f.err == nil {
		f.err = c.check()
	}
	return c, src, f.err
}

// lora reads the fields of a LoraConfig.
func (f *fields) lora() Config {
	f.refuse()
	c := Config{Kind: Plain, Bias: BiasNone, Rank: 8, Alpha: 8, Task: TaskUnnamed} // PEFT's, where a field is absent
	f.get("r", &c.Rank)
	f.get("lora_alpha", &c.Alpha)
	f.get("lora_dropout", &c.Dropout)
	f.get("use_rslora", &c.UseRSLoRA)
	dora := false
	if f.get("use_dora", &dora); dora {
		c.Kind = DoRA
	}
	if string(f.raw["init_lora_weights"]) == `"pissa"` {
		c.Init = InitPiSSA
	}
	f.get("rank_pattern", &c.RankPattern)
	f.get("alpha_pattern", &c.AlphaPattern)
	f.get("bias", &c.Bias)
	f.modules(&c)
	f.layers(&c)
	f.mixture(&c)
	if len(c.RankPattern) == 0 {
		c.RankPattern = nil
	}
	if len(c.AlphaPattern) == 0 {
		c.AlphaPattern = nil
	}
	return c
}

// ia3 reads the fields of an IA3Config.
func (f *fields) ia3() Config {
	c := Config{Kind: IA3, Bias: BiasNone, Task: TaskUnnamed}
	for _, name := range []string{"peft_type", "auto_mapping", "inference_mode", "init_ia3_weights", "peft_version", "runtime_config"} {
		f.read[name] = true
	}
	f.switchedOff("fan_in_fan_out", "IA3")
	f.modules(&c)
	c.Feedforward, c.FeedforwardPattern = f.names("feedforward_modules")
	return c
}

// modules decodes which modules are meant.
func (f *fields) modules(c *Config) {
	f.get("modules_to_save", &c.ModulesToSave)
	f.get("task_type", &c.Task)
	c.Targets, c.TargetPattern = f.names("target_modules")
	if strings.EqualFold(c.TargetPattern, AllLinear) {
		c.Targets, c.TargetPattern = []string{AllLinear}, ""
	}
	c.Exclude, c.ExcludePattern = f.names("exclude_modules")
	c.ModulesToSave = compact(c.ModulesToSave)
}

// switchedOff refuses a field that is not null, false or empty.
func (f *fields) switchedOff(name, kind string) {
	if f.read[name] = true; !empty(f.raw[name]) {
		f.fail("%s is %s: only plain %s is supported", name, brief(f.raw[name]), kind)
	}
}

// refuse finds what is not supported, and says its name.
func (f *fields) refuse() {
	kind := "null"
	if raw, ok := f.raw["peft_type"]; ok {
		kind = brief(raw)
	}
	if f.read["peft_type"] = true; kind != `"LORA"` && kind != mixtureType {
		f.fail(`peft_type is %s: only "LORA", "IA3" and, of this project's own, %s are supported`, kind, mixtureType)
	}
	for _, name := range off {
		f.switchedOff(name, "LoRA")
	}
	f.read["init_lora_weights"] = true
	if raw, ok := f.raw["init_lora_weights"]; ok && !slices.Contains(inits, string(raw)) {
		f.fail("init_lora_weights is %s: an initialisation that changes the base's weights is not supported", brief(raw))
	}
	for _, name := range idle {
		f.read[name] = true
	}
}

// layers decodes the choice of layers: one number or a list, one pattern or a list.
func (f *fields) layers(c *Config) {
	const name = "layers_to_transform"
	if raw := f.raw[name]; len(raw) > 0 && raw[0] != '[' && string(raw) != "null" {
		c.Layers = make([]int, 1)
		f.get(name, &c.Layers[0])
	} else {
		f.get(name, &c.Layers)
	}
	list, one := f.names("layers_pattern")
	if c.LayersPattern = list; one != "" {
		c.LayersPattern = []string{one}
	}
}

// rest refuses fields that are not known and switched on. Numbers pass: in PEFT they are sizes of
// something that another field switches on.
func (f *fields) rest() {
	for _, name := range sortedKeys(f.raw) {
		_, notNumber := strconv.ParseFloat(string(f.raw[name]), 64)
		if !f.read[name] && !empty(f.raw[name]) && notNumber != nil {
			f.fail("%s is %s: the field is not known, and may change what the adapter computes", name, brief(f.raw[name]))
		}
	}
}

// encodeConfig writes an adapter_config.json as PEFT does: every field, sorted, indented by two.
func encodeConfig(c *Config, src Source) ([]byte, error) {
	m := map[string]any{}
	if c.Kind == IA3 {
		m["auto_mapping"], m["fan_in_fan_out"], m["init_ia3_weights"] = nil, false, true
		m["peft_type"], m["feedforward_modules"] = "IA3", listOr(c.Feedforward, c.FeedforwardPattern)
		if m["feedforward_modules"] == nil {
			m["feedforward_modules"] = []string{} // null would be PEFT's own choice
		}
	} else {
		c.encodeLoRA(m)
	}
	if c.Kind == Mixture {
		c.Mixture.fields(m)
	}
	m["inference_mode"], m["peft_version"] = true, peftVersion
	m["base_model_name_or_path"], m["revision"] = orNull(src.Name), orNull(src.Revision)
	m["target_modules"], m["exclude_modules"] = listOr(c.Targets, c.TargetPattern), listOr(c.Exclude, c.ExcludePattern)
	m["modules_to_save"] = listOr(c.ModulesToSave, "")
	m["task_type"] = c.Task
	if c.Task == TaskUnnamed {
		m["task_type"] = nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encodeLoRA gives the fields of a LoraConfig.
func (c *Config) encodeLoRA(m map[string]any) {
	for _, name := range slices.Concat(off, idle) {
		m[name] = nil
	}
	for _, name := range []string{"ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_qalora"} {
		m[name] = false
	}
	delete(m, "runtime_config")
	m["init_lora_weights"], m["loftq_config"] = true, struct{}{}
	m["megatron_core"], m["qalora_group_size"] = "megatron.core", 16
	m["peft_type"], m["use_dora"] = "LORA", c.Kind == DoRA
	m["r"], m["lora_alpha"], m["lora_dropout"] = c.Rank, c.Alpha, pyFloat(c.Dropout)
	m["use_rslora"], m["bias"] = c.UseRSLoRA, c.Bias
	m["rank_pattern"], m["alpha_pattern"] = orEmpty(c.RankPattern), orEmpty(c.AlphaPattern)
	m["layers_to_transform"] = nil
	if len(c.Layers) > 0 {
		m["layers_to_transform"] = c.Layers
	}
	m["layers_pattern"] = listOr(c.LayersPattern, "")
	if len(c.LayersPattern) == 1 {
		m["layers_pattern"] = c.LayersPattern[0]
	}
}

// pyFloat is x as Python writes a float: never without a point or an exponent.
func pyFloat(x float64) json.Number {
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return json.Number(s)
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// listOr is the list, or the one name, or null.
func listOr(list []string, one string) any {
	if len(list) == 0 {
		return orNull(one)
	}
	return list
}
