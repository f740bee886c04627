// NCCL, played between processes of one machine or threads of one process: the functions of libnccl.so.2 that the program calls, on
// memory of the played card. Numbers pass through shared memory that is named by the id of the run. A gathering does its work within
// the call, where NCCL puts it on the stream.
//   PLAYED_NCCL_LOG     a file that gets a line for every call
//   PLAYED_NCCL_HANG    RANK:N  the Nth gathering of a rank never returns
//   PLAYED_NCCL_FAIL    RANK:N  from its Nth gathering on, nothing is gathered on a rank, and its state is an error
//   PLAYED_NCCL_REFUSE  1       ranks are not connected
//   PLAYED_NCCL_FOLDER          of the shared memory of processes (/dev/shm)
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define NCCL extern "C" __attribute__((visibility("default")))
enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, REMOTE_ERROR = 6 };
enum { FLOAT64 = 8 };
enum { MOST_RANKS = 64, PART = 1 << 13 }; // numbers that pass at a time

struct Id { char bytes[128]; };

// Zeros are its start.
struct Region {
  std::atomic<int> arrived, generation;
  size_t numbers[MOST_RANKS];
  double values[MOST_RANKS][PART];
};

struct Comm { int rank, size, card, gatherings; bool has_failed; Region *region; };

static std::string last_error;

static void log(const char *form, ...) {
  const char *path = getenv("PLAYED_NCCL_LOG");
  if (!path) return;
  char line[200];
  va_list rest;
  va_start(rest, form);
  int length = vsnprintf(line, sizeof line - 1, form, rest);
  va_end(rest);
  line[length++] = '\n';
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0) return;
  if (write(file, line, length) < 0) {}
  close(file);
}

static int refuse(int result, const char *why) {
  last_error = why;
  return result;
}

// Returns once all ranks have come.
static void meet(Region *region, int size) {
  int generation = region->generation.load();
  if (region->arrived.fetch_add(1) + 1 == size) {
    region->arrived.store(0);
    region->generation.store(generation + 1);
    return;
  }
  for (int turns = 0; region->generation.load() == generation; turns++) {
    if (turns < 1000) sched_yield();
    else usleep(100);
  }
}

// Whether the variable says RANK:N for this rank, and N is reached.
static bool is_at(const char *variable, const Comm *comm) {
  const char *value = getenv(variable);
  int rank, number;
  return value && sscanf(value, "%d:%d", &rank, &number) == 2 && rank == comm->rank && comm->gatherings >= number;
}

static int current_card() {
  static int (*get)(void **) = [] {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return (int (*)(void **))(driver ? dlsym(driver, "cuCtxGetCurrent") : nullptr);
  }();
  void *context = nullptr;
  if (!get || get(&context) || !context) return -1;
  return (int)((unsigned long long)context - 0x1000);
}

NCCL int ncclGetVersion(int *version) { *version = 22803; return SUCCESS; }
NCCL const char *ncclGetErrorString(int result) {
  switch (result) {
    case SUCCESS: return "no error";
    case SYSTEM_ERROR: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case REMOTE_ERROR: return "remote process exited or there was a network error";
    default: return "unknown result code";
  }
}
NCCL const char *ncclGetLastError(Comm *) { return last_error.c_str(); }

NCCL int ncclGetUniqueId(Id *id) {
  memset(id, 0, sizeof *id);
  int file = open("/dev/urandom", O_RDONLY);
  unsigned char dice[12] = {};
  if (file < 0 || read(file, dice, sizeof dice) != sizeof dice) return refuse(SYSTEM_ERROR, "no random numbers");
  close(file);
  const char *folder = getenv("PLAYED_NCCL_FOLDER");
  int length = snprintf(id->bytes, 100, "%s/played-nccl-", folder ? folder : "/dev/shm");
  if (length >= 100) return refuse(SYSTEM_ERROR, "PLAYED_NCCL_FOLDER is too long");
  char *name = id->bytes + length;
  for (unsigned char byte : dice) name += sprintf(name, "%02x", byte);
  log("id");
  return SUCCESS;
}

static int start(Comm **out, int size, int rank, int card, Region *region) {
  *out = new Comm{rank, size, card, 0, false, region};
  log("start %d of %d on card %d", rank, size, card);
  return SUCCESS;
}

NCCL int ncclCommInitRank(Comm **out, int size, Id id, int rank) {
  if (getenv("PLAYED_NCCL_REFUSE")) return refuse(SYSTEM_ERROR, "played: no connection");
  if (size < 1 || size > MOST_RANKS || rank < 0 || rank >= size) return refuse(INVALID_ARGUMENT, "rank and size");
  int card = current_card();
  if (card < 0) return refuse(INVALID_ARGUMENT, "no current card");
  int file = open(id.bytes, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Region))) return refuse(SYSTEM_ERROR, "no shared memory");
  void *region = mmap(nullptr, sizeof(Region), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (region == MAP_FAILED) return refuse(SYSTEM_ERROR, "no shared memory");
  meet((Region *)region, size);
  if (rank == 0) unlink(id.bytes);
  return start(out, size, rank, card, (Region *)region);
}

NCCL int ncclCommInitAll(Comm **out, int size, const int *cards) {
  if (getenv("PLAYED_NCCL_REFUSE")) return refuse(SYSTEM_ERROR, "played: no connection");
  if (size < 1 || size > MOST_RANKS) return refuse(INVALID_ARGUMENT, "size");
  void *region = mmap(nullptr, sizeof(Region), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED) return refuse(SYSTEM_ERROR, "no shared memory");
  for (int rank = 0; rank < size; rank++) start(out + rank, size, rank, cards[rank], (Region *)region);
  return SUCCESS;
}

NCCL int ncclAllGather(const void *from, void *to, size_t numbers, int type, Comm *comm, void *stream) {
  comm->gatherings++;
  log("gather %d: %zu numbers, number %d", comm->rank, numbers, comm->gatherings);
  if (type != FLOAT64) return refuse(INVALID_ARGUMENT, "not in double precision");
  if (!stream || *(int *)stream != comm->card) return refuse(INVALID_ARGUMENT, "a stream of another card");
  if (current_card() != comm->card) return refuse(INVALID_ARGUMENT, "another card is current");
  while (is_at("PLAYED_NCCL_HANG", comm)) pause();
  if (is_at("PLAYED_NCCL_FAIL", comm)) comm->has_failed = true;
  if (comm->has_failed) return SUCCESS;
  Region *region = comm->region;
  region->numbers[comm->rank] = numbers;
  meet(region, comm->size);
  for (int rank = 0; rank < comm->size; rank++) {
    if (region->numbers[rank] != numbers) return refuse(INVALID_ARGUMENT, "ranks gather different numbers of numbers");
  }
  size_t begin = 0;
  do {
    size_t count = numbers - begin < (size_t)PART ? numbers - begin : (size_t)PART;
    memcpy(region->values[comm->rank], (const double *)from + begin, 8 * count);
    meet(region, comm->size);
    for (int rank = 0; rank < comm->size; rank++) memcpy((double *)to + rank * numbers + begin, region->values[rank], 8 * count);
    meet(region, comm->size);
    begin += PART;
  } while (begin < numbers);
  return SUCCESS;
}

NCCL int ncclCommGetAsyncError(Comm *comm, int *state) {
  *state = comm->has_failed ? REMOTE_ERROR : SUCCESS;
  if (comm->has_failed) last_error = "played: a rank has gone";
  return SUCCESS;
}

NCCL int ncclCommDestroy(Comm *comm) {
  log("end %d", comm->rank);
  delete comm;
  return SUCCESS;
}
