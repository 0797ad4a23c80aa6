//go:build gpu

// Package drivertest puts a table of functions in the driver's place where GPU_DRIVER is "table": one device named
// "device of a table", and nothing else. It is imported by the tests of package driver only.
package drivertest

import "C"
