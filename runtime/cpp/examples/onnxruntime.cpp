// Pictures in on stdin, class ids out on stdout, by ONNX Runtime:
//
//   ffmpeg -i drive.mp4 -f image2pipe -c:v ppm - | fastseg_onnxruntime model ids LIBRARY > drive.pgm
//
// LIBRARY is libonnxruntime.so or a path to it. `overlay` in place of `ids` writes the pictures with
// the classes' colours. THREADS may follow; the time of each frame goes to stderr.
#include "onnxruntime.hpp"

#include "pictures.hpp"

int main(int argc, char** argv) {
  const char* const usage = "fastseg_onnxruntime FOLDER ids|overlay LIBRARY [THREADS] < PPM";
  return fastseg::answer_stream(argc, argv, usage, [&](const fastseg::Contract& contract) {
    if (argc < 4) throw fastseg::Error("usage: " + std::string(usage));
    return fastseg::OnnxRuntime(argv[3], argv[1], contract, fastseg::read_threads(argc, argv, 4));
  });
}
