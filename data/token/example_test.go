package token_test

import (
	"fmt"
	"strings"

	"rung/data/token"
)

func vocabulary() []string {
	return strings.Fields("[PAD] [UNK] [CLS] [SEP] [MASK] who wrote dracula ? bram stoker ##s .")
}

func ExampleTokenizer_AppendIDs() {
	t, err := token.FromVocab(vocabulary(), token.Defaults())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range t.AppendIDs(nil, "Bram Stokers?") {
		fmt.Print(t.Token(id), " ")
	}
	// Output: bram stoker ##s ?
}

func ExampleTokenizer_Pair() {
	t, err := token.FromVocab(vocabulary(), token.Defaults())
	if err != nil {
		fmt.Println(err)
		return
	}
	e := token.Encoding{WantOffsets: true}
	if err := t.Pair(&e, "Who wrote Dracula?", "Bram Stoker wrote Dracula.", 9, token.OnlySecond); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.IDs)
	fmt.Println(e.Types)
	fmt.Println(e.Offsets[1:5], e.Truncated)
	// Output:
	// [2 5 6 7 8 3 9 10 3]
	// [0 0 0 0 0 0 1 1 1]
	// [[0 3] [4 9] [10 17] [17 18]] 3
}
