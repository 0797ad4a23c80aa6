// Package graph is the only room that talks to Gorgonia. Models, losses and adapters are
// gorgonia.ExprGraphs; what v0.9.18 lacks for training in fixed memory is here:
//
//		build → rewrite → differentiate → lower → plan → run
//
//	  - Build: layers make plain nodes. A shape names what its rows count, so that tokens are never
//	    added to sequences. Errors stick to the Builder.
//	  - Rewrite: the graph is rebuilt by rules: row selection is pushed down, then operators are fused.
//	    Gorgonia graphs cannot be edited (edges, hashes and its collision table are not updated
//	    together), so a rewrite is a copy.
//	  - Differentiate: VJP returns contributions to gradients. What is frozen costs nothing.
//	  - Lower: each operator appends backend calls on buffers.
//	  - Plan: lifetimes become offsets in one arena.
//	  - Run: a Program is immutable and shared; a Run owns an arena and binds weights by path.
//
// A program is compiled for capacities (Dims). Real counts are inputs: unused sequences are empty,
// unused units weigh 0, and rows past the real count are stale and read by no kernel.
package graph
