// What a processor's architecture has: instruction sets, and a way to wait without work.
#ifdef __aarch64__
enum { RUNG_NEON, RUNG_ISAS };
#define VERSIONS(F, name) F(name, neon)
#define WAIT() __asm__ volatile("isb") // yield does nothing on most
#else
enum { RUNG_AVX2, RUNG_AVX512, RUNG_ISAS };
#define VERSIONS(F, name) F(name, avx2) F(name, avx512)
#define WAIT() __builtin_ia32_pause()
#endif
