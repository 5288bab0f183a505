/* A driver's library with one card, for the real pynvml to load: what it answers is checked by test_training_gpus. */
#include <stdio.h>
#include <string.h>

#define OK 0
#define NOT_SUPPORTED 3
#define INSUFFICIENT_SIZE 7

typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_t;

int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
int nvmlShutdown(void) { puts("shutdown"); fflush(stdout); return OK; }
const char *nvmlErrorString(int code) { (void)code; return "stub"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return OK; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) { (void)device; strncpy(uuid, "GPU-stub", size); return OK; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { (void)device; strncpy(name, "NVIDIA Stub", size); return OK; }
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *use) { (void)device; use->gpu = 42; use->memory = 1; return OK; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    (void)device;
    memory->total = 1000;
    memory->used = 250;
    memory->free = 750;
    return OK;
}
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    (void)device;
    *celsius = sensor == 0 ? 55 : 0;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { (void)device; *milliwatts = 123456; return OK; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { (void)device; (void)milliwatts; return NOT_SUPPORTED; }
int nvmlDeviceGetTotalEccErrors(void *device, unsigned kind, unsigned counter, unsigned long long *count) {
    (void)device;
    *count = kind == 1 && counter == 0 ? 7 : 0;
    return OK;
}
/* An old driver: the reasons have their old name, and processes the second form of theirs. */
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    (void)device;
    *reasons = 0x20;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, process_t *processes) {
    (void)device;
    if (processes == NULL) {
        *count = 1;
        return INSUFFICIENT_SIZE;
    }
    *count = 1;
    processes[0].pid = 4243;
    processes[0].used = 1;
    return OK;
}
