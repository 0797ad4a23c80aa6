package hub

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rung/checkpoints"
)

// optional are the files that change how a model is used and that many models lack. A snapshot
// without one is known to be whole only if the cache says that the hub has none either.
var optional = []string{
	"adapter_config.json",
	"config.json",
	"config_sentence_transformers.json",
	"modules.json",
	"sentence_bert_config.json",
	"tokenizer.json",
	"tokenizer_config.json",
	"vocab.txt",
	checkpoints.ManifestFile,
}

var (
	// sentence-transformers' own name, and those of its first versions
	sentenceConfig = regexp.MustCompile(`^sentence_(?:bert|distilbert|electra|roberta|xlnet|albert|mpnet|camembert|xlm-roberta)_config\.json$`)
	weightsName    = regexp.MustCompile(`^(?:model|adapter_model)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?$`)
	moduleDir      = regexp.MustCompile(`^\d+_[A-Za-z0-9_]+$`)
)

// needed tells whether a file of the hub is one that a ranker is loaded from.
func needed(name string) bool {
	dir, base := path.Split(name)
	if dir != "" && !moduleDir.MatchString(strings.TrimSuffix(dir, "/")) {
		return false
	}
	switch base {
	case "special_tokens_map.json", "added_tokens.json", "rank.json":
		return true
	}
	return slices.Contains(optional, base) || sentenceConfig.MatchString(base) || weightsName.MatchString(base)
}

// choose picks what to download. A repository with a manifest is one of this program's directories and
// is taken whole, so that it can be verified. Either way, no file that can run code or serves another
// runtime.
func choose(files []remoteFile) ([]remoteFile, error) {
	has := func(name string) bool {
		return slices.ContainsFunc(files, func(f remoteFile) bool { return f.Name == name })
	}
	whole := has(checkpoints.ManifestFile)
	var chosen []remoteFile
	for _, f := range files {
		if !filepath.IsLocal(f.Name) || path.Clean(f.Name) != f.Name || strings.ContainsAny(f.Name, "\\\x00") {
			return nil, fmt.Errorf("the hub lists a file %q, which is no proper name", f.Name)
		}
		foreign := slices.Contains([]string{".bin", ".h5", ".onnx", ".pt", ".pkl", ".ckpt", ".msgpack"}, path.Ext(f.Name))
		if needed(f.Name) || whole && !foreign && f.Name != ".gitattributes" {
			chosen = append(chosen, f)
		}
	}
	for _, f := range files {
		dir, base := path.Split(f.Name)
		var st string
		switch base {
		case "pytorch_model.bin", "pytorch_model.bin.index.json":
			st = dir + checkpoints.ModelFile
		case "adapter_model.bin":
			st = dir + checkpoints.AdapterFile
		}
		if st != "" && (dir == "" || needed(st)) && !has(st) && !has(st+".index.json") {
			return nil, fmt.Errorf("it holds %s but no %s; pickle is never read, because it can run code: name a revision that has safetensors (often refs/pr/N), or convert it", f.Name, st)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("it holds none of the files a model is loaded from (config.json, model.safetensors, …)")
	}
	return chosen, nil
}
