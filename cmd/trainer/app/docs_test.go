package app

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
)

// Configurations that the documentation shows are such: blocks of YAML, and adapters within a line. What a block leaves out
// is filled in.
func TestConfigurationsOfDocs(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	inline := regexp.MustCompile("`(\\{kind: [^`]*\\})`")
	for file, least := range map[string]int{"README.md": 1, "docs/adapters.md": 9, "docs/privacy.md": 1} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", filepath.FromSlash(file)))
		require.NoError(t, err)
		var texts []string
		for _, m := range block.FindAllStringSubmatch(string(b), -1) {
			texts = append(texts, m[1])
		}
		for _, m := range inline.FindAllStringSubmatch(string(b), -1) {
			texts = append(texts, "adapter: "+m[1]+"\n")
		}
		require.GreaterOrEqual(t, len(texts), least, file)
		kinds := map[string]bool{}
		for _, text := range texts {
			for key, line := range map[string]string{"model:": "model: base\n", "data:": "data: {train: \"jsonl:x\"}\n"} {
				if !strings.HasPrefix(text, key) && !strings.Contains(text, "\n"+key) {
					text += line
				}
			}
			path := filepath.Join(t.TempDir(), "run.yaml")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
			c, err := Builtin().loadConfig(path, nil)
			require.NoError(t, err, "%s:\n%s", file, text)
			kinds[c.adapter] = true
		}
		if file == "docs/adapters.md" {
			for _, kind := range lora.Kinds() {
				require.True(t, kinds[kind], "%s shows no %s", file, kind)
			}
		}
	}
}
