import com.pixelmed.validate.DicomSRValidator;

/** Runs PixelMed's SR validator over many files in one JVM: compiling its rules takes ten seconds, a file takes none. */
public class ValidateReports {
    public static void main(String[] paths) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String path : paths) {
            System.out.println("File: " + path);
            System.out.println(validator.validate(path));
        }
    }
}
