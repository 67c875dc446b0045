// Pictures in on stdin, class ids out on stdout, by TensorRT:
//
//   ffmpeg -i drive.mp4 -f image2pipe -c:v ppm - | fastseg_tensorrt model ids model.engine > drive.pgm
//
// The engine is one that trtexec has built of the network in `model` on this device, with this
// TensorRT: nothing else fits. It is code: run none from elsewhere. `overlay` in place of `ids`
// writes the pictures with the classes' colours; the time of each frame goes to stderr.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>

#include "pictures.hpp"

namespace {

using fastseg::Error;

class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kERROR) last_ = message;
  }
  // What it said last, on one line.
  std::string last() const {
    std::string line = last_.empty() ? "no reason given" : last_;
    std::replace(line.begin(), line.end(), '\n', ' ');
    return line;
  }

 private:
  std::string last_;
};

void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess)
    throw Error(std::string(what) + " failed: " + cudaGetErrorString(code));
}

struct DeviceFree {
  void operator()(void* memory) const { cudaFree(memory); }
};
struct HostFree {
  void operator()(std::uint8_t* memory) const { cudaFreeHost(memory); }
};
struct StreamDestroy {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};

// Bytes on the GPU and what they hold.
struct Tensor {
  std::unique_ptr<void, DeviceFree> memory;
  std::size_t bytes;
};

class TensorRt {
 public:
  TensorRt(const std::string& engine_file, const fastseg::Contract& contract)
      : contract_(contract), logger_(std::make_unique<Logger>()) {
    const std::string plan = read(engine_file);
    runtime_.reset(nvinfer1::createInferRuntime(*logger_));
    if (!runtime_) fail("TensorRT does not start");
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) fail(engine_file + " is no engine of this TensorRT and GPU; build it here");
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail("no memory for the engine");
    for (int index = 0; index < engine_->getNbIOTensors(); ++index)
      place(engine_->getIOTensorName(index));
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    stream_.reset(stream);
    const auto& in = contract.input;
    const auto& out = contract.output;
    input_ = expect(in.name, nvinfer1::TensorIOMode::kINPUT, 3, in.width, in.height);
    output_ = expect(out.name, nvinfer1::TensorIOMode::kOUTPUT, 1, out.width, out.height);
    void* ids = nullptr;  // pinned: else the copy waits for a detour
    check(cudaHostAlloc(&ids, output_->bytes, cudaHostAllocDefault), "allocating pinned memory");
    ids_.reset(static_cast<std::uint8_t*>(ids));
  }

  const std::uint8_t* operator()(const std::uint8_t* image) {
    cudaStream_t stream = stream_.get();
    check(cudaMemcpyAsync(input_->memory.get(), image, input_->bytes, cudaMemcpyHostToDevice,
                          stream),
          "copying a frame to the GPU");
    if (!context_->enqueueV3(stream)) fail("running the engine failed");
    check(cudaMemcpyAsync(ids_.get(), output_->memory.get(), output_->bytes,
                          cudaMemcpyDeviceToHost, stream),
          "copying ids from the GPU");
    check(cudaStreamSynchronize(stream), "running the engine");
    return ids_.get();
  }

 private:
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    if (content.empty())
      throw Error(path + " cannot be read, or is empty; build it with trtexec --saveEngine");
    return content;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(what + ": " + logger_->last());
  }

  // Gives a tensor of the engine its memory. All of those of fastseg's networks are bytes.
  void place(const char* name) {
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    std::size_t bytes = 1;
    for (int axis = 0; axis < shape.nbDims; ++axis) {
      if (shape.d[axis] < 1) bytes = 0;  // a size that is not fixed
      bytes *= static_cast<std::size_t>(shape.d[axis]);
    }
    if (bytes == 0 || engine_->getTensorDataType(name) != nvinfer1::DataType::kUINT8)
      throw Error("the engine's tensor " + std::string(name) +
                  " is not uint8 of a fixed size; build it of a network of fastseg");
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "allocating GPU memory");
    tensors_[name] = Tensor{std::unique_ptr<void, DeviceFree>(memory), bytes};
    if (!context_->setTensorAddress(name, memory)) fail("placing tensor " + std::string(name));
  }

  const Tensor* expect(const std::string& name, nvinfer1::TensorIOMode mode, std::size_t channels,
                       int width, int height) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end() || engine_->getTensorIOMode(name.c_str()) != mode ||
        found->second.bytes !=
            channels * static_cast<std::size_t>(width) * static_cast<std::size_t>(height))
      throw Error("the engine's tensor " + name + " is not what contract.json says, " +
                  std::to_string(width) + "x" + std::to_string(height) +
                  "; build it of the network beside that file");
    return &found->second;
  }

  fastseg::Contract contract_;
  // Freed in the opposite order: a context before its engine, all before their logger.
  std::unique_ptr<Logger> logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::map<std::string, Tensor> tensors_;  // whose nodes stay where they are
  const Tensor* input_ = nullptr;
  const Tensor* output_ = nullptr;
  std::unique_ptr<std::uint8_t, HostFree> ids_;
  std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDestroy> stream_;
};

}  // namespace

int main(int argc, char** argv) {
  const char* const usage = "fastseg_tensorrt FOLDER ids|overlay ENGINE < PPM";
  return fastseg::answer_stream(argc, argv, usage, [&](const fastseg::Contract& contract) {
    if (argc != 4) throw Error("usage: " + std::string(usage));
    return TensorRt(argv[3], contract);
  });
}
