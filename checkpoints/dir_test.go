package checkpoints

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rung/nn/nntest/shared"
)

func put(t testing.TB, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

func symlink(t *testing.T, target, at string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
	require.NoError(t, os.Symlink(target, at))
}

func TestDirConfines(t *testing.T) {
	root := t.TempDir()
	secret := put(t, root, "secret", "secret")
	dir := filepath.Join(root, "model")
	put(t, dir, "config.json", "{}")
	put(t, dir, "sub/a.txt", "a")
	symlink(t, "../secret", filepath.Join(dir, "up"))
	symlink(t, secret, filepath.Join(dir, "absolute"))
	symlink(t, "..", filepath.Join(dir, "updir"))
	symlink(t, "sub/a.txt", filepath.Join(dir, "inside"))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))

	d, err := OpenDir(dir)
	require.NoError(t, err)
	defer d.Close()
	require.Equal(t, dir, d.Path())
	for _, name := range []string{"config.json", "sub/a.txt", "inside", "sub/../config.json"} {
		require.True(t, d.Has(name), name)
	}
	for _, name := range []string{"../secret", secret, "up", "absolute", "updir/secret", "sub/../../secret", ""} {
		require.False(t, d.Has(name), name)
		_, err := d.ReadFile(name, 100)
		require.ErrorContains(t, err, "leads out of the directory", name)
	}
	for _, name := range []string{"sub", "pipe"} {
		_, err := d.Open(name)
		require.ErrorContains(t, err, name+" is no regular file")
	}
	_, err = d.Open("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	b, err := d.ReadFile("sub/a.txt", 1)
	require.NoError(t, err)
	require.Equal(t, "a", string(b))
	_, err = d.ReadFile("config.json", 1)
	require.ErrorContains(t, err, "config.json has 2 bytes, above the limit of 1")

	_, err = OpenDir(secret)
	require.ErrorContains(t, err, "is a file, not a directory")
	_, err = OpenDir(filepath.Join(root, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestDirFollowsBlobsOfItsHubCache(t *testing.T) {
	root := t.TempDir()
	put(t, root, "secret", "secret")
	repo := filepath.Join(root, "hub", "models--org--name")
	put(t, repo, "blobs/aaaa", "config")
	put(t, repo, "refs/main", "c0ffee")
	symlink(t, "../../../secret", filepath.Join(repo, "blobs", "evil"))
	other := filepath.Join(root, "hub", "models--org--private")
	put(t, other, "blobs/bbbb", "private")
	snap := filepath.Join(repo, "snapshots", "c0ffee")
	symlink(t, "../../blobs/aaaa", filepath.Join(snap, "config.json"))
	symlink(t, "../../../blobs/aaaa", filepath.Join(snap, "1_Pooling", "config.json"))
	symlink(t, "../../blobs/evil", filepath.Join(snap, "evil"))
	symlink(t, "../../blobs/../refs/main", filepath.Join(snap, "ref"))
	symlink(t, "../../blobs/gone", filepath.Join(snap, "gone"))
	symlink(t, "../../../models--org--private/blobs/bbbb", filepath.Join(snap, "other"))
	symlink(t, filepath.Join(repo, "blobs", "aaaa"), filepath.Join(snap, "absolute"))

	t.Chdir(repo)
	symlink(t, snap, filepath.Join(root, "link"))
	for _, dir := range []string{snap, "snapshots/c0ffee", filepath.Join(root, "link")} {
		d, err := OpenDir(dir)
		require.NoError(t, err)
		b, err := d.ReadFile("config.json", 100)
		require.NoError(t, err)
		require.Equal(t, "config", string(b))
		require.True(t, d.Has("1_Pooling/config.json"))
		for _, name := range []string{"evil", "ref", "other", "absolute", "gone"} {
			_, err := d.Open(name)
			require.Error(t, err, name)
			require.Equal(t, name == "gone", errors.Is(err, fs.ErrNotExist), name)
		}
		require.NoError(t, d.Close())
	}
	sub, err := OpenDir(filepath.Join(snap, "1_Pooling"))
	require.NoError(t, err)
	require.True(t, sub.Has("config.json"))
	require.NoError(t, sub.Close())

	// The same links elsewhere lead out.
	plain := filepath.Join(root, "plain", "snapshots", "c0ffee")
	put(t, root, "plain/blobs/aaaa", "config")
	symlink(t, "../../blobs/aaaa", filepath.Join(plain, "config.json"))
	d, err := OpenDir(plain)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Open("config.json")
	require.ErrorContains(t, err, "leads out of the directory through a link")
}

func writeShard(t *testing.T, dir, name string, tensors ...string) {
	t.Helper()
	var ts []Tensor
	for _, n := range tensors {
		ts = append(ts, Tensor{Name: n, DType: U8, Shape: []int{1}, Data: []byte(n[:1])})
	}
	require.NoError(t, CreateFile(filepath.Join(dir, name), ts, map[string]string{"shard": name}))
}

func TestWeightsFromShards(t *testing.T) {
	dir := t.TempDir()
	index := func(m string) {
		put(t, dir, ModelFile+".index.json", `{"metadata":{"total_size":3},"weight_map":`+m+`}`)
	}
	writeShard(t, dir, "one.safetensors", "a", "b")
	writeShard(t, dir, "two.safetensors", "c", "unlisted")
	index(`{"c":"two.safetensors","a":"one.safetensors","b":"one.safetensors"}`)
	w, err := OpenWeights(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c", "unlisted"}, w.Names())
	require.Equal(t, "one.safetensors", w.Metadata["shard"])
	c, err := w.Tensor("c")
	require.NoError(t, err)
	require.Equal(t, "c", string(c.Data))
	require.True(t, w.Has("c"))
	_, err = w.Tensor("x")
	require.ErrorContains(t, err, `holds no tensor "x"`)
	require.NoError(t, w.Close())

	for m, want := range map[string]string{
		`{"a":"one.safetensors","d":"two.safetensors"}`: `tensor "d", which model.safetensors.index.json lists, is not in its shard two.safetensors`,
		`{"a":"two.safetensors","b":"one.safetensors"}`: `tensor "a", which model.safetensors.index.json lists, is not in its shard two.safetensors`,
		`{"a":"none.safetensors"}`:                      "shard none.safetensors, which model.safetensors.index.json lists, is missing",
		`{"a":"../x.safetensors"}`:                      "leads out of the directory",
		`{"a":"/etc/x.safetensors"}`:                    "leads out of the directory",
		`{"a":"one.bin"}`:                               "is no safetensors file",
		`{"a":"one.safetensors","a":"two.safetensors"}`: `key "a" stands twice`,
		`{}`:  "lists no tensor",
		`[]`:  "expected {",
		`{"a`: "not valid JSON",
	} {
		index(m)
		_, err := OpenWeights(dir)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	writeShard(t, dir, "three.safetensors", "a", "d")
	index(`{"a":"one.safetensors","d":"three.safetensors"}`)
	_, err = OpenWeights(dir)
	require.ErrorContains(t, err, `tensor "a" is in two shards, `)
	require.NoError(t, os.Truncate(filepath.Join(dir, "three.safetensors"), 150))
	_, err = OpenWeights(dir)
	require.ErrorContains(t, err, "three.safetensors: truncated")
}

func TestWeightsByName(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenWeights(dir)
	require.ErrorContains(t, err, "holds neither model.safetensors nor model.safetensors.index.json")
	put(t, dir, "pytorch_model.bin", "x")
	_, err = OpenWeights(dir)
	require.ErrorContains(t, err, "holds pytorch_model.bin but no model.safetensors; pickle is never read")
	writeShard(t, dir, AdapterFile, "lora")
	put(t, dir, "2_Dense/x", "")
	writeShard(t, dir, "2_Dense/model.safetensors", "linear.weight")
	d, err := OpenDir(dir)
	require.NoError(t, err)
	defer d.Close()
	for name, tensor := range map[string]string{AdapterFile: "lora", "2_Dense/model.safetensors": "linear.weight"} {
		w, err := d.Weights(name)
		require.NoError(t, err)
		require.Equal(t, []string{tensor}, w.Names())
		require.NoError(t, w.Close())
	}
	_, err = d.Weights("1_Dense/" + ModelFile)
	require.ErrorContains(t, err, "holds neither 1_Dense/model.safetensors")
}

func TestGoldenDirectories(t *testing.T) {
	root := shared.Path(t, "golden", "checkpoints")
	for dir, name := range map[string]string{
		"bert_sharded": ModelFile, "cross_encoder_1": ModelFile, "older_st53_cross_encoder_1": ModelFile,
		"st_mean_dense": "2_Dense/model.safetensors", "peft_adapter_cross_encoder": AdapterFile,
	} {
		d, err := OpenDir(filepath.Join(root, dir))
		require.NoError(t, err)
		w, err := d.Weights(name)
		require.NoError(t, err)
		total := 0
		for _, n := range w.Names() {
			x, err := w.Tensor(n)
			require.NoError(t, err)
			v, err := Float32s(x)
			require.NoError(t, err)
			total += len(v)
		}
		require.Positive(t, total)
		if dir == "bert_sharded" {
			require.Equal(t, 33120, total) // metadata.total_parameters of the index
		}
		require.NoError(t, w.Close())
		require.NoError(t, d.Close())
		m, err := Verify(filepath.Join(root, dir))
		require.NoError(t, err)
		require.Nil(t, m)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":3},"weight_map":{"a":"one.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"one.safetensors","a":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseIndex(b)
		if err == nil && len(m) == 0 {
			t.Fatal("no error and no tensor")
		}
	})
}

func ExampleOpenWeights() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	weight, err := NewTensor("classifier.weight", []int{1, 3}, []float32{0.5, -1, 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := CreateFile(filepath.Join(dir, ModelFile), []Tensor{weight}, nil); err != nil {
		fmt.Println(err)
		return
	}

	w, err := OpenWeights(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()
	for _, name := range w.Names() {
		t, err := w.Tensor(name)
		if err != nil {
			fmt.Println(err)
			return
		}
		v, err := Float32s(t)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(t.Name, t.DType, t.Shape, v)
	}
	// Output: classifier.weight F32 [1 3] [0.5 -1 2]
}
